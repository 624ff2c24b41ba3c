"""The studio's looks: colours and spacing for Gradio's own components, and what goes into the page's head.

Verdigris is the one accent; copper marks only what is alive now, a run in progress. Nothing here names
another host: fonts are the system's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradio.themes import Base

from app.scripts import STATIC

_SANS = (
    "ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial",
    "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif",
)  # fmt: skip
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")


def theme() -> Base:
    """Gradio's theme in Patina's colours; contrast of text is at least 4.5 to 1 in light and dark."""
    from gradio.themes import Base
    from gradio.themes.utils.colors import Color
    from gradio.themes.utils.sizes import Size

    verdigris = Color(
        "#F0F7F5", "#DCEDE9", "#BBDCD4", "#95C8BC", "#6FC3B2", "#3F9585",
        "#2E7D6F", "#25665B", "#1F5249", "#19423B", "#10302B", name="verdigris",
    )  # fmt: skip
    paper = Color(
        "#FFFFFF", "#FAF8F4", "#F1EEE8", "#E4E0D8", "#C9C4BA", "#77736B",
        "#5C5953", "#45433F", "#2A2D2F", "#1D2124", "#15181A", name="paper",
    )  # fmt: skip
    corners = Size("2px", "4px", "6px", "8px", "8px", "12px", "16px", name="patina_radius")
    steps = Size("2px", "4px", "8px", "8px", "16px", "16px", "24px", name="patina_spacing")
    look = Base(
        primary_hue=verdigris,
        secondary_hue=verdigris,
        neutral_hue=paper,
        radius_size=corners,
        spacing_size=steps,
        font=_SANS,
        font_mono=_MONO,
    )
    return look.set(
        body_background_fill="#FAF8F4",
        body_background_fill_dark="#15181A",
        body_text_color="#23211E",
        body_text_color_dark="#E9E6E0",
        body_text_color_subdued="#6A665F",
        body_text_color_subdued_dark="#A5A199",
        background_fill_primary="#FFFFFF",
        background_fill_primary_dark="#1C2023",
        background_fill_secondary="#F4F1EB",
        background_fill_secondary_dark="#22272A",
        border_color_primary="#E4E0D8",
        border_color_primary_dark="#33393D",
        border_color_accent="#2E7D6F",
        border_color_accent_dark="#6FC3B2",
        color_accent="#2E7D6F",
        color_accent_soft="#E3F0ED",
        color_accent_soft_dark="#20393A",
        link_text_color="#25665B",
        link_text_color_dark="#6FC3B2",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_shadow="none",
        block_shadow_dark="none",
        block_padding="0",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="#5C5953",
        block_label_text_color_dark="#B9B5AD",
        block_label_text_size="13px",
        block_label_padding="0 0 4px 0",
        block_title_text_color="#3A3733",
        block_title_text_color_dark="#D6D2CA",
        block_title_text_size="13px",
        block_title_text_weight="600",
        block_title_padding="0 0 4px 0",
        block_info_text_color="#6A665F",
        block_info_text_color_dark="#A5A199",
        block_info_text_size="13px",
        panel_border_width="0px",
        panel_background_fill="transparent",
        panel_background_fill_dark="transparent",
        layout_gap="16px",
        form_gap_width="0px",
        input_background_fill="#FFFFFF",
        input_background_fill_dark="#1C2023",
        input_background_fill_focus="#FFFFFF",
        input_background_fill_focus_dark="#1C2023",
        input_border_color="#C9C4BA",
        input_border_color_dark="#464D52",
        input_border_color_focus="#2E7D6F",
        input_border_color_focus_dark="#6FC3B2",
        input_border_width="1px",
        input_shadow="none",
        input_shadow_focus="0 0 0 2px rgba(46,125,111,.25)",
        input_shadow_focus_dark="0 0 0 2px rgba(111,195,178,.3)",
        input_padding="8px 12px",
        input_text_size="15px",
        input_placeholder_color="#77736B",
        input_placeholder_color_dark="#8E8A83",
        slider_color="#2E7D6F",
        slider_color_dark="#6FC3B2",
        checkbox_background_color_selected="#2E7D6F",
        checkbox_background_color_selected_dark="#3F9585",
        checkbox_border_color_selected="#2E7D6F",
        checkbox_border_color_selected_dark="#6FC3B2",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        checkbox_label_background_fill_hover="#F4F1EB",
        checkbox_label_background_fill_hover_dark="#22272A",
        checkbox_label_background_fill_selected="#E3F0ED",
        checkbox_label_background_fill_selected_dark="#20393A",
        checkbox_label_text_color_selected="#1F5249",
        checkbox_label_text_color_selected_dark="#CDEAE3",
        checkbox_label_border_color_selected="#2E7D6F",
        checkbox_label_border_color_selected_dark="#6FC3B2",
        checkbox_label_padding="8px 12px",
        button_primary_background_fill="#2E7D6F",
        button_primary_background_fill_dark="#6FC3B2",
        button_primary_background_fill_hover="#25665B",
        button_primary_background_fill_hover_dark="#8BD2C4",
        button_primary_text_color="#FFFFFF",
        button_primary_text_color_dark="#10221F",
        button_primary_border_color="transparent",
        button_primary_border_color_dark="transparent",
        button_primary_shadow="none",
        button_secondary_background_fill="transparent",
        button_secondary_background_fill_dark="transparent",
        button_secondary_background_fill_hover="#F1EEE8",
        button_secondary_background_fill_hover_dark="#2A2D2F",
        button_secondary_border_color="#C9C4BA",
        button_secondary_border_color_dark="#464D52",
        button_secondary_text_color="#23211E",
        button_secondary_text_color_dark="#E9E6E0",
        button_secondary_shadow="none",
        button_border_width="1px",
        button_large_text_size="15px",
        button_large_padding="10px 20px",
        button_small_text_size="13px",
        button_small_padding="6px 12px",
        button_transform_hover="none",
        table_border_color="#E4E0D8",
        table_border_color_dark="#33393D",
        table_even_background_fill="transparent",
        table_even_background_fill_dark="transparent",
        table_odd_background_fill="transparent",
        table_odd_background_fill_dark="transparent",
    )


def css() -> str:
    """The style sheets beyond Gradio's variables: the frame's, then each tab's ``tab_*.css``."""
    sheets = [STATIC / "patina.css", *sorted(STATIC.glob("tab_*.css"))]
    return "\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets)


def head() -> str:
    """What the page's head gets: the script that paints light or dark, inlined so that it runs before all else."""
    script = (STATIC / "start.js").read_text(encoding="utf-8")
    return f'<meta name="color-scheme" content="light dark"><script>{script}</script>'
