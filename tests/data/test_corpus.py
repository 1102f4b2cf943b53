"""Texts of files: what is read, what is refused with file and line, and the texts of a trained model."""

import pytest

from vaezoo import DataSpec, load_data
from vaezoo.data.inference import array_examples, find_examples
from vaezoo.data.text.corpus import TextOptions
from vaezoo.data.text.lines import MAX_LINE_BYTES, read_lines
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError, VaezooWarning
from vaezoo.training.run import load_source

LINES = ["anna", "bob", "", "carla", "dora", "emil", "fritz", "gina", "hans", "ida", "jo", "karl"]


@pytest.fixture
def corpus(tmp_path):
    file = tmp_path / "My Corpus.txt"
    file.write_text("\ufeff" + "\r\n".join(LINES) + "\n", "utf-8")
    return file


def texts_of(split, spec):
    return spec.make_tokenizer().to_texts(split.x)


def test_lines_become_examples(corpus):
    data = load_data(corpus)
    assert (data.spec.name, data.spec.kind, data.spec.likelihood) == ("my-corpus", "tokens", "categorical")
    assert data.spec.shape == (6,) and data.spec.tokenizer == "characters" and data.test is None
    assert texts_of(data.train, data.spec) + texts_of(data.valid, data.spec) == LINES[1:2] + LINES[3:] + LINES[:1]


def test_the_vocabulary_is_that_of_the_training_part(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("xyz\n" + "ab\n" * 9)  # the first text is held out
    with pytest.warns(VaezooWarning, match="3 symbols are not in the vocabulary"):
        data = load_data(file)
    assert data.spec.symbols == ("", "\n", "\ufffd", "a", "b")
    assert data.valid.x.tolist() == [[2, 2, 2, 1]]


def test_folders_are_read_in_the_order_of_their_files(tmp_path):
    for name, text in {
        "b.txt": "b1\nb2",
        "sub/a.txt": "s1",
        "a.txt": "b1",
        ".hidden.txt": "no",
        "README.md": "#",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    lines = read_lines(tmp_path)
    assert [line.text for line in lines] == ["b1", "b1", "b2", "s1"]
    assert [line.name for line in lines] == ["a.txt:1", "b.txt:1", "b.txt:2", "sub/a.txt:1"]
    assert load_data(tmp_path).spec.kind == "tokens"


def write_parts(folder, form="ptb.{}.txt", **texts):
    for name, text in texts.items():
        file = folder / form.format(name)
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


@pytest.mark.parametrize("form", ["ptb.{}.txt", "{}/a.txt"])
@pytest.mark.filterwarnings("ignore:.*not in the vocabulary")
def test_splits_are_named_by_files_or_folders(tmp_path, form):
    write_parts(tmp_path, form, train="anna\nbob\n", valid="eva\n", test="zoe\nnan\nada\n")
    data = load_data(tmp_path)
    assert [len(split) for split in (data.train, data.valid, data.test)] == [2, 1, 3]
    tokenizer = data.spec.make_tokenizer()
    assert "z" not in tokenizer.symbols and "a" in tokenizer.symbols  # it is fitted to the training part
    assert tokenizer.to_texts(data.valid.gather(slice(None)).x.numpy())[0][-1] == "a"


@pytest.mark.filterwarnings("ignore:.*not in the vocabulary")
def test_tests_are_held_out_in_new_data(tmp_path):
    write_parts(tmp_path, train="anna\nbob\neva\nada\n", test="nan\n")
    data = load_data(tmp_path)
    found = find_examples(data.spec, tmp_path)
    assert found.names == ("ptb.test.txt:1",)
    assert len(find_examples(data.spec, tmp_path, part="all").split) == 5


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train": "a\nb", "test": "a", "notes": "a"},
            "has 'ptb.test.txt' of the test split, and also 'ptb.notes.txt'",
        ),
        ({"valid": "a\nb", "test": "a"}, "has the splits test and valid, but no training texts"),
    ],
)
def test_unclear_splits_are_refused(tmp_path, files, message):
    write_parts(tmp_path, **files)
    with pytest.raises(InputError) as e:
        load_data(tmp_path)
    assert message in e.value.message


@pytest.mark.filterwarnings("ignore:.*not in the vocabulary")
def test_one_file_named_after_a_split_is_a_text(tmp_path):
    """A title may have such a word."""
    write_parts(tmp_path, the_train_to_york="a\nb\n", odes="c\n")
    assert load_data(tmp_path).test is None


def test_columns_of_csv_files(tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text('id,text\n1,bad\n2,"bad,\nvery bad"\n3,\n4,"so ""so"""\n')
    lines = read_lines(file, "text")
    assert [(line.text, line.number) for line in lines] == [("bad", 2), ("bad, very bad", 3), ('so "so"', 6)]
    data = load_data(file, text=TextOptions(column="text", tokenizer="words"))
    assert data.source.column == "text" and data.spec.tokenizer == "words"


@pytest.mark.filterwarnings("ignore::vaezoo.errors.VaezooWarning")
@pytest.mark.parametrize("tokenizer", ["characters", "words", "subwords"])
def test_a_run_loads_its_texts_again(tokenizer, corpus):
    options = TextOptions(tokenizer=tokenizer, vocabulary=300, length=5, on_long_text="cut")
    data = load_data(corpus, text=options)
    assert data.spec.shape == (5,) and data.spec.vocabulary <= 300
    corpus.write_text("yyyy\n" * 20 + corpus.read_text("utf-8-sig"), "utf-8")  # another fit would have other ids
    assert load_source(data.source, data.spec).spec == data.spec != load_data(corpus, text=options).spec


BAD = {
    "empty.txt": (b"\n  \n", "'.*empty.txt' holds no text"),
    "latin.txt": ("ok\ngr\xfcn\n".encode("latin-1"), "line 2 of 'latin.txt' is not UTF-8: byte 0xfc at 2"),
    "nul.txt": (b"ok\nok\na\0b\n", "line 3 of 'nul.txt' holds a NUL byte"),
    "utf16.txt": ("abc\n".encode("utf-16"), "line 1 of 'utf16.txt' holds a NUL byte"),
    "huge.txt": (b"a\n" + b"x" * (MAX_LINE_BYTES + 1), "line 2 of 'huge.txt' has more than 1,048,576 bytes"),
    "long.txt": (b"a\n" * 20 + b"y" * 600, "line 21 of 'long.txt' is the longest text, with 601 ids"),
    "short.csv": (b"text,b\nok,1\nonly\n", "line 3 of 'short.csv' has 1 columns, and the header 2"),
    "quote.csv": (b'text\n"open\n', "line 2 of 'quote.csv' is not CSV"),
    "other.csv": (b"a,b\n1,2\n", "'.*other.csv' has no column 'text'"),
    "twice.csv": (b"text,text\n1,2\n", "has 2 columns named 'text'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_with_their_line(name, tmp_path):
    content, message = BAD[name]
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_data(file, text=TextOptions(column="text" if file.suffix == ".csv" else None))
    assert error.value.hint


def test_folders_without_texts_are_refused(tmp_path):
    (tmp_path / "a.md").write_text("a")
    with pytest.raises(InputError, match=r"holds no \.txt file"):
        read_lines(tmp_path)


def test_long_lines_are_refused_or_cut(corpus):
    with pytest.raises(InputError, match=r"line 4 of 'My Corpus\.txt' has 6 ids, more than 5") as error:
        load_data(corpus, text=TextOptions(length=5))
    assert "--on-long-text cut" in error.value.hint
    with pytest.warns(VaezooWarning, match="2 of 11 texts have more than 5 ids and are cut"):
        load_data(corpus, text=TextOptions(length=5, on_long_text="cut"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": "letters"}, "no tokenizer named 'letters'"),
        ({"tokenizer": "words", "vocabulary": 2}, "a vocabulary of 2 words is out of range"),
        ({"length": 1}, "length is 1"),
        ({"length": 10**6}, "length 1,000,000 is too large"),
        ({"on_long_text": "skip"}, "on_long_text 'skip' is not known"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(VaezooError, match=message) as error:
        TextOptions(**options)
    assert error.value.hint


@pytest.mark.parametrize("data", ["digits", "names"])
def test_options_are_for_files_of_texts(data):
    with pytest.raises(VaezooError, match=f"--length is for files of texts, and '{data}' is none"):
        load_data(data, text=TextOptions(length=8))


def test_new_texts_go_through_the_tokenizer_of_the_model(corpus, tmp_path):
    spec = load_data(corpus).spec
    other = tmp_path / "other.txt"
    other.write_text("hanna\n\nbäb\n", "utf-8")
    with pytest.warns(VaezooWarning, match="1 symbols are not in the vocabulary"):
        examples = find_examples(spec, other)
    assert texts_of(examples.split, spec) == ["hanna", "b\ufffdb"] and [*examples.names] == [
        "other.txt:1",
        "other.txt:3",
    ]
    assert texts_of(array_examples(spec, ["dora", "ida"]).split, spec) == ["dora", "ida"]
    with pytest.raises(InputError, match="has 7 ids, more than 6"):
        array_examples(spec, ["bobbob"])
    with pytest.raises(UnsupportedDataError, match="has no tokenizer"):
        array_examples(DataSpec(name="v", shape=(3,)), ["abc"])


def test_texts_of_other_symbols_do_not_fit(corpus):
    from vaezoo import create_model
    from vaezoo.vae import check_fits

    spec = load_data(corpus).spec
    vae = create_model("mlp-vae", spec, {"hidden": [4], "latent_dim": 2})
    other = DataSpec(
        **{**{f: getattr(spec, f) for f in spec.__slots__}, "symbols": (*spec.symbols[:3], *spec.symbols[:2:-1])}
    )
    with pytest.raises(UnsupportedDataError, match="stand for other symbols"):
        check_fits(vae, other)
