"""The Hugging Face token: kept where huggingface_hub keeps it, for all programs, and never shown."""

from __future__ import annotations

from trainer.errors import StudioError


def has_token() -> bool:
    """Whether one is kept, or stands in the environment."""
    from huggingface_hub import get_token

    return bool(get_token())


def keep_token(token: str) -> None:
    """Have huggingface_hub ask the hub about a token and keep it.

    Raises:
        StudioError: the hub does not know it, or cannot be reached.
    """
    from huggingface_hub import login

    token = token.strip()
    if not token:
        raise StudioError("Write the token first; it is made at huggingface.co under Settings, Access Tokens.")
    try:
        login(token=token, add_to_git_credential=False)
    except ValueError:
        raise StudioError("The hub does not know this token. Copy it once more, or make a new one.") from None
    except Exception:
        # Whatever its library raises of a connection that fails; the token must not stand in a message.
        raise StudioError("The hub cannot be reached from here, so the token could not be checked.") from None


def forget_token() -> None:
    """Have huggingface_hub forget it.

    Raises:
        StudioError: it stands in the environment, which only whoever started Patina can change.
    """
    from huggingface_hub import get_token, logout

    logout()
    if get_token():
        raise StudioError("The token stands in the variable HF_TOKEN, where Patina was started: unset it there.")
