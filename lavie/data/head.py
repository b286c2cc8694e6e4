"""The first frames of another dataset's clips: what a clip starts from, under the caption of the whole."""

from dataclasses import replace
from typing import Literal, final

from lavie.data.base import Clip, Dataset, DatasetSpec
from lavie.spec import Count


class HeadSpec(DatasetSpec):
    """Clips cut off after their first frames.

    Captions and labels stay. A model that learns where things start learns which way they go: a word like "left" says
    outright where the first frame has its object, while for whole clips it only decides between a motion and its
    mirror image, which is found much later.
    """

    type: Literal["head"] = "head"
    clips: DatasetSpec
    """Where the clips come from."""
    num_frames: Count = 1
    """Frames that are kept."""

    def build(self) -> "Head":
        """Open the dataset."""
        return Head(self.clips.build(), self.num_frames)


@final
class Head(Dataset):
    """The first frames of clips."""

    def __init__(self, clips: Dataset, num_frames: int) -> None:
        self.clips = clips
        self.num_frames = num_frames

    def __len__(self) -> int:
        return len(self.clips)

    def clip(self, index: int) -> Clip:
        """Return the first frames of one clip.

        Raises:
            IndexError: if `index` is not in [0, len).
            ValueError: if the clip has fewer frames.
        """
        clip = self.clips.clip(index)
        if clip.video.shape[1] < self.num_frames:
            raise ValueError(f"num_frames: {self.num_frames} of a clip that has only {clip.video.shape[1]} frames")
        return replace(clip, video=clip.video[:, : self.num_frames])
