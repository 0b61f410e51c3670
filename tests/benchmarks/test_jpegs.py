"""The made-up files are such as data/image_folder.py reads."""

from benchmarks.jpegs import HEIGHT, WIDTH, write_jpegs
from benchmarks.resident_images import create_source
from data import image_folder


def test_jpegs_are_a_folder_of_photograph_sized_files_each_under_several_names(tmp_path):
    size = write_jpegs(tmp_path, create_source(tmp_path / "none", 6, 100), count=5, links=3)
    assert 70_000 < size < 120_000
    source = image_folder.create_source(tmp_path)
    assert [len(source.subsets[name]) for name in ("train", "test", "val")] == [15, 1, 1]
    assert len({source.path(index).stat().st_ino for index in source.subsets["train"]}) == 5
    assert {source.read(index).size for index in range(len(source))} == {(WIDTH, HEIGHT)}
