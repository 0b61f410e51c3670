import json
import shutil
import threading

import numpy as np
import pyarrow as pa
import pytest
from drawn_codes import draw_codes, numbered_rows, plain_search
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from search import faiss_store, segment
from search.faiss_store import FaissIndex
from search.index import create_index, open_index
from search.rows import make_rows
from search.store import Coding
from search.writer_lock import writing
from utils.errors import UserError


class IndexAgainstDict(RuleBasedStateMachine):
    """Random writes to an index and to a dict of id → (code, row) show the same."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(faiss_store, "FOLD", 40)
        self.patch.setattr(segment, "ROW_BATCH", 16)

    @initialize(seed=st.integers(0, 2**32 - 1), code_length=st.sampled_from([3, 8, 20, 64, 100]))
    def create(self, seed, code_length):
        from tempfile import mkdtemp

        self.folder = mkdtemp()
        self.rng = np.random.default_rng(seed)
        self.length = code_length
        self.index = create_index(self.folder, Coding(code_length))
        self.held = {}
        self.given = 0

    @rule(count=st.integers(0, 50))
    def add(self, count):
        codes = draw_codes(self.rng, count, self.length)
        ids = self.index.add(codes, numbered_rows(self.given, count))
        assert ids.tolist() == list(range(self.given, self.given + count))
        self.held.update(zip(ids.tolist(), codes, strict=True))
        self.given += count

    @rule(share=st.sampled_from([0.1, 0.6, 1.0]))
    def remove(self, share):
        chosen = [item for item in self.held if self.rng.random() < share]
        assert self.index.remove(chosen) == len(chosen)
        for item in chosen:
            del self.held[item]

    @rule()
    def remove_what_is_not_there(self):
        gone = sorted(set(range(self.given + 1)) - set(self.held))[0]
        with pytest.raises(UserError, match=f"no id {gone}"):
            self.index.remove([*list(self.held)[:3], gone])

    @rule()
    def compact(self):
        self.index.compact()
        assert self.index.info()["segments"] <= 1

    @rule()
    def reopen(self):
        self.index = open_index(self.folder)

    @invariant()
    def same(self):
        ids = sorted(self.held)
        assert len(self.index) == len(ids)
        assert self.index.select().tolist() == ids
        codes = np.array([self.held[item] for item in ids], np.uint8)
        codes = codes.reshape(len(ids), -(-self.length // 8))
        some = self.rng.permutation(ids)[:10].astype(np.int64)
        for code, item in zip(self.index.codes(some), some, strict=True):
            assert (code == self.held[item]).all()
        assert self.index.rows(some).drop("id") == pa.concat_tables(
            [numbered_rows(0, 0), *(numbered_rows(item, 1) for item in some)]
        )
        query = draw_codes(self.rng, 1, self.length)
        for where, meets in (
            (None, lambda item: True),
            ("label = 'dog' AND id >= 5", lambda item: item % 3 == 0 and item >= 5),
        ):
            kept = [at for at, item in enumerate(ids) if meets(item)]
            hits = self.index.search(query, 12, where)
            found = list(zip(hits.ids[0].tolist(), hits.distances[0].tolist(), strict=True))
            expected = plain_search(query[0], codes[kept], [ids[at] for at in kept], 12)
            assert found == expected + [(-1, -1)] * (12 - len(expected))

    def teardown(self):
        self.patch.undo()
        if hasattr(self, "folder"):
            assert self.index.verify() == []
            shutil.rmtree(self.folder)


IndexAgainstDict.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=12,
    suppress_health_check=[HealthCheck.too_slow],
)
TestIndexAgainstDict = IndexAgainstDict.TestCase


@pytest.fixture
def index(tmp_path, rng):
    index = create_index(tmp_path / "index", Coding(20, model_digest="ab" * 32, checkpoint="m"))
    index.add(draw_codes(rng, 100, 20), numbered_rows(0, 100))
    return index


def test_codes_of_another_model_or_length_are_refused(index, rng):
    other = "cd" * 32
    for work in (
        lambda: index.search(draw_codes(rng, 1, 20), 3, model_digest=other),
        lambda: index.add(draw_codes(rng, 1, 20), numbered_rows(0, 1), other),
    ):
        with pytest.raises(UserError, match="model cdcdcdcdcdcd, but the index holds codes of ab"):
            work()
    with pytest.raises(UserError, match="4 bytes came to an index of 20 bits, which takes 3"):
        index.search(draw_codes(rng, 1, 32), 3)
    with pytest.raises(UserError, match="bits set past"):
        index.search(np.full((1, 3), 255, np.uint8), 3)
    with pytest.raises(UserError, match="expected at least 1"):
        index.search(draw_codes(rng, 1, 20), 0)
    with pytest.raises(UserError, match="3 rows for 2 codes"):
        index.add(draw_codes(rng, 2, 20), make_rows(3))
    assert len(open_index(index.folder)) == 100


def test_a_second_writer_is_refused_and_a_reader_is_not(index, rng):
    with writing(index.folder):
        other = open_index(index.folder)
        with pytest.raises(UserError, match="another process is writing"):
            other.add(draw_codes(rng, 1, 20), numbered_rows(0, 1))
        assert (other.search(draw_codes(rng, 2, 20), 5).ids >= 0).all()
    other.add(draw_codes(rng, 1, 20), numbered_rows(100, 1))


def test_a_reader_goes_on_with_what_it_opened_until_it_refreshes(index, rng):
    reader = open_index(index.folder)
    query = draw_codes(rng, 3, 20)
    before = reader.search(query, 10)
    index.remove(np.arange(50))
    index.add(draw_codes(rng, 30, 20), numbered_rows(100, 30))
    index.compact()
    assert len(list((index.folder / "segments").iterdir())) == 1
    assert (reader.search(query, 10).ids == before.ids).all()
    assert reader.rows(before.ids[0])["path"].to_pylist() == [f"{i}.png" for i in before.ids[0]]
    assert reader.refresh()
    assert not reader.refresh()
    assert (reader.search(query, 10).ids == index.search(query, 10).ids).all()
    assert reader.search(query, 10).ids.min() >= 50


def test_readers_open_and_search_while_a_writer_replaces_all_files(index, rng):
    faults, stop = [], threading.Event()
    query = draw_codes(rng, 2, 20)

    def read():
        while not stop.is_set():
            try:
                found = open_index(index.folder).search(query, 5)
                if (found.ids < 0).any():
                    faults.append("too few")
            except Exception as error:
                faults.append(repr(error))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(15):
        index.add(draw_codes(rng, 20, 20), numbered_rows(100 + 20 * turn, 20))
        index.remove(index.select(limit=10))
        index.compact()
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []


@pytest.mark.parametrize("failing", ["write_segment", "file_digest", "sync_folder"])
def test_a_full_disk_leaves_the_index_as_it_was(index, rng, monkeypatch, failing):
    def fail(*given):
        raise OSError(28, "No space left on device")

    works = {
        "write_segment": lambda: index.add(draw_codes(rng, 9, 20), numbered_rows(100, 9)),
        "file_digest": lambda: index.remove([1, 2]),
        "sync_folder": index.compact,
    }
    index.remove([5])
    monkeypatch.setattr(faiss_store, failing, fail)
    with pytest.raises(OSError, match="No space"):
        works[failing]()
    monkeypatch.undo()
    index = open_index(index.folder)
    assert index.verify() == []
    assert len(index) == 99
    works[failing]()
    assert open_index(index.folder).verify() == []


def test_what_a_dead_writer_left_is_not_seen_and_is_swept(index, rng):
    stray = index.folder / "segments" / "000099"
    shutil.copytree(next((index.folder / "segments").iterdir()), stray)
    (index.folder / "removed-000099.npy").write_bytes(b"half")
    (index.folder / ".tmp-1.json").write_bytes(b"half")
    assert len(open_index(index.folder)) == 100
    assert open_index(index.folder).verify() == []
    index.add(draw_codes(rng, 1, 20), numbered_rows(100, 1))
    names = {path.name for path in index.folder.iterdir()}
    assert names == {"lock", "manifest.json", "segments"}
    assert len(list((index.folder / "segments").iterdir())) == 1


@pytest.mark.parametrize("name", ["codes.npy", "ids.npy", "rows.arrow"])
def test_verify_tells_a_changed_byte(index, name):
    path = next((index.folder / "segments").iterdir()) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (fault,) = open_index(index.folder).verify()
    assert str(path) in fault


@pytest.mark.parametrize("name", ["codes.npy", "ids.npy", "rows.arrow"])
def test_a_missing_or_cut_file_is_one_line(index, name):
    path = next((index.folder / "segments").iterdir()) / name
    for damage in (lambda: path.write_bytes(path.read_bytes()[:100]), path.unlink):
        damage()
        with pytest.raises(UserError, match="missing or damaged") as refused:
            open_index(index.folder)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 9, "store": "faiss"}'])
def test_a_damaged_manifest_is_one_line(index, content):
    (index.folder / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json") as refused:
        open_index(index.folder)
    assert "\n" not in str(refused.value)


def test_another_bit_order_is_refused(index):
    path = index.folder / "manifest.json"
    values = json.loads(path.read_text())
    values["coding"]["bit_order"] = "big"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="bit order 'big'"):
        open_index(index.folder)


def test_no_index_and_a_folder_in_use_are_one_line(tmp_path, index):
    with pytest.raises(UserError, match="no index here"):
        open_index(tmp_path / "nothing")
    with pytest.raises(UserError, match="not empty"):
        create_index(index.folder, Coding(20))
    with pytest.raises(UserError, match="no store 'oracle'"):
        create_index(tmp_path / "new", Coding(20), "oracle")
    with pytest.raises(UserError, match="takes a URI"):
        create_index("s3://bucket/index", Coding(20))


def test_many_small_adds_leave_few_segments(tmp_path, rng):
    index = FaissIndex.create(tmp_path / "index", Coding(8))
    for number in range(30):
        index.add(draw_codes(rng, 1, 8), numbered_rows(number, 1))
    assert index.info()["segments"] == 1
    assert index.rows(np.arange(30)[::-1])["path"].to_pylist()[0] == "29.png"


def test_an_index_of_nothing_finds_nothing(tmp_path):
    index = create_index(tmp_path / "index", Coding(16))
    hits = index.search(np.zeros((2, 2), np.uint8), 3, "label = 'x'")
    assert hits.ids.tolist() == [[-1] * 3] * 2
    assert index.rows([]).num_rows == 0
    assert index.select().tolist() == []
    index.compact()
    assert index.verify() == []
