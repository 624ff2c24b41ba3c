"""The studio behind the page: `Studio` opens a folder and has a part for everything that is done with it."""

from trainer.studio.studio import Studio as Studio
