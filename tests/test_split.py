"""A model in several files scores as the one in a single file; parts that don't fit together are refused."""

import shutil
import types

import gguf
import pytest

import tiny_gguf
from candle_phi import InvalidModelError, ModelNotFoundError, Phi3Session, inspect_model
from messages import mentions

IDS = tiny_gguf.random_ids(12)
PARTS = 3
DAMAGES = pytest.mark.thread_unsafe(reason="it changes the files that the threads share")


def scores(path, **options):
    with Phi3Session(path, kv_dtype="f32", **options) as session:
        return session.score(IDS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny_gguf.write(tmp_path_factory.mktemp("whole") / "tiny.gguf")


@pytest.fixture
def parts(whole, tmp_path):
    return split(whole, tmp_path / "tiny.gguf")


class DamagingWriter(gguf.GGUFWriter):
    """Splits as its parent does, and then changes the last part."""

    drop = False
    change = types.MappingProxyType({})

    def add_shard_kv_data(self):
        super().add_shard_kv_data()
        if self.drop:
            self.tensors[-1].popitem()
        for key, value in self.change.items():
            self.kv_data[-1][key] = gguf.gguf_writer.GGUFValue(value, gguf.GGUFValueType.UINT16)


def split(source, path, **damage):
    """Writes the parts of a file as the `gguf` package splits them."""
    reader = gguf.GGUFReader(source)
    writer = DamagingWriter(path, "phi3", split_max_tensors=-(-len(reader.tensors) // PARTS))
    vars(writer).update(damage)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            sub_type = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=sub_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return [path.with_name(f"{path.stem}-{number:05}-of-{PARTS:05}.gguf") for number in range(1, PARTS + 1)]


@pytest.mark.parametrize("mmap", [True, False])
def test_any_part_scores_as_the_whole_file(whole, parts, mmap):
    expected = scores(whole, mmap=mmap)
    assert [scores(part, mmap=mmap) for part in parts] == [expected] * PARTS


def test_the_facts_are_those_of_all_parts_together(whole, parts):
    one, split_model = inspect_model(whole), inspect_model(parts[1])
    assert split_model.file_size_bytes == sum(part.stat().st_size for part in parts)
    assert (split_model.parameter_count, split_model.weights_bytes) == (one.parameter_count, one.weights_bytes)
    assert (split_model.name, split_model.block_count) == (one.name, one.block_count)


@DAMAGES
@pytest.mark.parametrize("missing", range(PARTS))
def test_a_missing_part_is_named(parts, missing):
    parts[missing].unlink()
    for part in set(parts) - {parts[missing]}:
        with pytest.raises(ModelNotFoundError, match=parts[missing].name):
            Phi3Session(part)


def test_a_part_that_lost_its_name_says_what_it_is(parts, tmp_path):
    lost = shutil.copy(parts[0], tmp_path / "model.gguf")
    with pytest.raises(InvalidModelError) as caught:
        Phi3Session(lost)
    mentions(caught.value, lost, "split.count", 3, "00001-of-00003.gguf")


@DAMAGES
def test_parts_in_each_others_place(parts, tmp_path):
    shutil.move(parts[1], tmp_path / "other")
    shutil.move(parts[2], parts[1])
    shutil.move(tmp_path / "other", parts[2])
    with pytest.raises(InvalidModelError) as caught:
        Phi3Session(parts[0])
    mentions(caught.value, parts[1], "split.no", 1, 2)


@DAMAGES
def test_a_part_of_another_model(whole, parts, tmp_path):
    (tmp_path / "other").mkdir()
    other = tiny_gguf.write(tmp_path / "other.gguf", block_count=3)
    shutil.copy(split(other, tmp_path / "other" / "tiny.gguf")[2], parts[2])
    with pytest.raises(InvalidModelError) as caught:
        Phi3Session(parts[0])
    mentions(caught.value, parts[0], parts[2], "split.tensors.count")


@pytest.mark.parametrize(
    ("damage", "values"),
    [
        ({"drop": True}, ["split.tensors.count", 3]),
        ({"change": {"split.count": 2}}, ["split.count", 2, 3]),
        ({"change": {"split.no": 7}}, ["split.no", 7, 2]),
        ({"change": {"phi3.block_count": 7}}, ["phi3.block_count", 7, 2]),
    ],
)
def test_parts_that_contradict_each_other(whole, tmp_path, damage, values):
    first, *_ = split(whole, tmp_path / "tiny.gguf", **damage)
    with pytest.raises(InvalidModelError) as caught:
        Phi3Session(first)
    mentions(caught.value, *values)


@DAMAGES
def test_a_part_that_was_cut_short(parts):
    body = parts[2].read_bytes()
    parts[2].write_bytes(body[:-64])
    with pytest.raises(InvalidModelError, match="00003-of-00003"):
        Phi3Session(parts[0])
