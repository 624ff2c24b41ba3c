"""Sending a parcel to the Hugging Face hub, with the token that its own client keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trainer.bases.hub import is_about_network
from trainer.bases.sources import HUB_ID
from trainer.errors import PublishError
from trainer.publishing.parcel import Parcel

COMMIT = "Published with Patina"


def check_repo(repo: str) -> str:
    """A repository's id as the hub takes it.

    Raises:
        PublishError: it is none.
    """
    if not HUB_ID.fullmatch(repo) or ".." in repo or "--" in repo:
        raise PublishError(f"The repository is {repo!r}, but should be USER/NAME, as in its address on the hub.")
    return repo


def push(parcel: Parcel, repo: str, *, private: bool = False) -> str:
    """Make the repository if there is none, and commit the parcel to it; returns the repository's address.

    Args:
        private: only you may see a repository that is made now; one that is there stays as it is.

    Raises:
        PublishError: not logged in, no right to write there, no network, or the hub refuses the model card.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _as_sentences(repo):
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=parcel.folder, commit_message=COMMIT)
    return str(address)


@contextmanager
def _as_sentences(repo: str) -> Iterator[None]:
    from huggingface_hub import errors

    log_in = "log in with 'hf auth login' or set HF_TOKEN, with a token that may write"
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise PublishError("Patina is told to stay offline (HF_HUB_OFFLINE), so nothing was sent.") from None
    except errors.LocalTokenNotFoundError:
        raise PublishError(f"You are not logged in to the Hugging Face hub: {log_in}.") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403):
            raise PublishError(f"The Hugging Face hub does not let you write to {repo!r}: {log_in}.") from None
        said = str(getattr(error, "server_message", "") or "").strip().rstrip(".")
        raise PublishError(
            f"The Hugging Face hub refused {repo!r} with error {status}{f' ({said[:200]})' if said else ''}."
        ) from None
    except ValueError as error:
        raise PublishError(f"The Hugging Face hub refused the model card: {str(error).strip()[:300]}") from None
    except OSError as error:
        raise PublishError(f"The Hugging Face hub cannot be reached ({error}); nothing was published.") from None
    except Exception as error:
        if not is_about_network(error):
            raise
        raise PublishError("The Hugging Face hub cannot be reached: check the network, then try again.") from None
