"""MSR-Action3D: 20 actions by 10 people, each 2 or 3 times, filmed by a depth camera; only time tells many apart.

W. Li, Z. Zhang, Z. Liu: Action recognition based on a bag of 3D points, CVPR Workshops 2010. Its authors offer it at
https://sites.google.com/view/wanqingli/data-sets/msr-action3d as depth maps, `a01_s01_e01_sdepth.bin`: action,
subject, trial. A file holds the number of frames, width and height, then the frames, all little-endian 32-bit
integers; 0 is nothing there. This reader takes videos, which you make of these: one grey 8-bit mp4 a file, 112x112,
near bright and nothing black, one folder a class:

  a01_high_arm_wave/a01_s01_e01.mp4     the names of the folders are yours
  classInd.txt                          1 a01_high_arm_wave
  trainlist01.txt                       a01_high_arm_wave/a01_s01_e01.mp4 1
  testlist01.txt                        a01_high_arm_wave/a01_s02_e01.mp4

The lists are in UCF101's form and follow the cross-subject protocol: subjects 1, 3, 5, 7 and 9 train, the others
test. The subject is the group, in all classes, so that "heldout-msraction3d" has nobody on both sides either.
"""

from pathlib import Path

from david.data.readers import Dataset
from david.data.readers.core import assemble, find_root
from david.data.readers.ucf101 import read_lists


def msraction3d(
    root: str | Path | None = None,
    split: int = 1,
    *,
    lists: str | Path | None = None,
    missing: str = "error",
    flip: bool = False,
) -> Dataset:
    """Read MSR-Action3D. root: the folder of the class folders and the lists.

    lists: the folder of the lists, where it is not root; or a CSV file. missing: "error" or "skip", as in UCF101.
    flip: whether a mirrored clip keeps its label; it shows the other hand or side, which is another action here.
    """
    root = find_root("msraction3d", root, missing)
    if split != 1:
        raise ValueError(f"split={split}: msraction3d has one split, 1, by subjects")
    classes, listed, lists = read_lists(root, lists, split)
    for item in listed:
        if item.group == item.name:
            what = f"{item.where}: {item.name!r} does not say whom the video shows"
            raise ValueError(f"{what}: name file and line like a01_s01_e01 (action, subject, trial)")
    return assemble("msraction3d", classes, listed, root=root, lists=lists, missing=missing, flip=flip, across=True)
