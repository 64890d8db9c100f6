"""VT-LVLM-AR as a whole: visual events become words by the frozen projector, prompts learn, and nothing else moves."""

import itertools
import json

import av
import numpy as np
import pytest
import torch
from fresh_python import python
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import (
    CLASS_NAMES,
    VISION_LANGUAGE,
    tiny_llava,
    tiny_llm,
    tiny_tokenizer,
    tiny_vtem,
)
from tiny_videos import tiny_video
from transformers import AutoModelForImageTextToText

from action_llm import (
    ActionLLMForClassification,
    ActionLLMForConditionalGeneration,
    ActionLLMProcessor,
    VideoFeatureExtractor,
)
from action_llm.explanations import sentence_of
from action_llm.language_models import load_language_model, load_vision_tower, text_decoder_of
from action_llm.modeling_vtem import VisualEvent
from action_llm.sliding_windows import EventBlock, windows_of_events
from action_llm.timelines import Timeline, stream_events

INSTRUCTIONS = {
    "instruction": "{tokens} Given the sequence of visual events, what action is being performed?",
    "instruction_with_classes": (
        "{tokens} Given the sequence of visual events, what action is being performed? Choose from {classes}."
    ),
}

LOAD_ALONE = """
import json, sys
sys.modules["action_llm"] = None  # the package may be installed here: as if it were not
import torch
from transformers import AutoModel, AutoProcessor
folder = sys.argv[1]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    logits = model(**processor(folder + "/clip.mp4")).logits
timeline = model.timeline(processor, folder + "/clip.mp4", seconds=0.5, stride=0.25)
print(json.dumps([type(model).__name__, [float(x).hex() for x in logits[0]], timeline.probabilities.tolist()]))
"""


def processor(**overrides):
    extractor = VideoFeatureExtractor(8, 1, segment_seconds=0.1, height=32, width=32)
    options = {"class_names": CLASS_NAMES, "num_action_tokens": 16, **INSTRUCTIONS} | overrides
    return ActionLLMProcessor(extractor, tiny_tokenizer(), **options)


def compose(llm=None, vtem=None, cls=ActionLLMForClassification, **options):
    torch.manual_seed(3)
    return cls.from_llm(
        tiny_llava() if llm is None else llm,
        action_token_offset=len(tiny_tokenizer()),
        action_model=tiny_vtem() if vtem is None else vtem,
        class_names=CLASS_NAMES,
        **options,
    )


@pytest.fixture
def clip(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(tiny_video(30))
    return tmp_path / "clip.mp4"


# ---------------------------------------------------------------------------------------------------- words of features


def test_events_are_what_the_projector_of_the_lvlm_makes_of_codes():
    torch.manual_seed(0)
    whole = AutoModelForImageTextToText.from_config(VISION_LANGUAGE["llava"](len(tiny_tokenizer()) + 7)).eval()
    vtem = tiny_vtem()
    model = compose(text_decoder_of(whole), vtem)
    with torch.no_grad():
        expected = whole.model.multi_modal_projector(vtem.codebook)
    torch.testing.assert_close(model.model.action_embedding.weight, expected)
    assert not model.model.action_embedding.weight.requires_grad


def test_a_projector_of_another_activation_is_not_taken_for_this_one():
    config = VISION_LANGUAGE["llava"](len(tiny_tokenizer()) + 7)
    config.projector_hidden_act = "relu"
    llm = text_decoder_of(AutoModelForImageTextToText.from_config(config))
    with pytest.raises(ValueError, match="but this llama has none"):
        compose(llm)


@pytest.mark.parametrize("quantize", [True, False])
def test_from_a_file_to_a_class_with_and_without_codes(quantize, clip):
    model, read = compose(vtem=tiny_vtem(quantize=quantize), injection_layer=None if quantize else 0), processor()
    with torch.no_grad():
        outputs = model(**read([clip, clip]))
    assert outputs.logits.shape == (2, len(CLASS_NAMES)) and torch.equal(outputs.logits[0], outputs.logits[1])
    assert outputs.end_times.max() == pytest.approx(1.0, abs=0.15)
    assert outputs.probabilities.sum(-1).allclose(torch.ones(2))
    # A class list of any kind at call time; with the list in the prompt, too.
    for listed in (False, True):
        other = model(**read(clip, class_names=["jumping", "sitting"], list_classes=listed))
        assert other.logits.shape == (1, 2)
    with pytest.raises(ValueError, match="the class list is empty"):
        read(clip, class_names=[])


def test_continuous_events_that_are_codes_are_the_words_of_their_tokens():
    vtem = tiny_vtem()
    discrete, continuous = compose(vtem=vtem), compose(vtem=vtem, injection_layer=0)
    read, ids = processor(), [3, 1, 4, 1]
    inputs = read(action_ids=[ids])
    placeholders = inputs["input_ids"].clone()
    is_action = placeholders >= discrete.config.action_token_offset
    placeholders[is_action] = discrete.config.placeholder_token_id
    with torch.no_grad():
        expected = discrete(**inputs).logits
        found = continuous(
            **{**inputs, "input_ids": placeholders}, action_embeds=vtem.codebook[torch.tensor([ids])]
        ).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in continuous.model.action_projector.parameters())


def test_codes_that_no_projector_takes():
    with pytest.raises(ValueError, match="need the projector of a LLaVA model, but this llama has none"):
        compose(llm=tiny_llm("llama"))
    wide = tiny_vtem(maps_features=True, codebook_dim=24)
    with pytest.raises(ValueError, match="vectors of width 24, but the projector of the language model takes 16"):
        compose(vtem=wide)
    with pytest.raises(ValueError, match="vectors of width 24, but the projector of the language model takes 16"):
        compose(vtem=wide, injection_layer=0)


def test_the_vision_tower_of_an_lvlm(tmp_path):
    torch.manual_seed(0)
    whole = AutoModelForImageTextToText.from_config(VISION_LANGUAGE["llava"](300))
    whole.save_pretrained(tmp_path / "llava")
    tower, layer = load_vision_tower(str(tmp_path / "llava"))
    assert layer == whole.config.vision_feature_layer == -2
    for name, value in whole.model.vision_tower.state_dict().items():
        assert torch.equal(tower.state_dict()[name], value)
    AutoModelForImageTextToText.from_config(VISION_LANGUAGE["qwen2.5-vl"](300)).save_pretrained(tmp_path / "qwen")
    with pytest.raises(ValueError, match=r"is a qwen2_5_vl; expected a LLaVA model"):
        load_vision_tower(str(tmp_path / "qwen"))


# ------------------------------------------------------------------------------------------------------- what is trained


@pytest.mark.parametrize(
    ("options", "soft"),
    [({"prefix_length": 4, "prefix_layers": [0, 1]}, 0), ({}, 4)],
    ids=["prompts in layers", "prompts at the input"],
)
@pytest.mark.parametrize("quantize", [True, False])
def test_prompts_learn_and_the_lvlm_stays_as_it_is_to_the_bit(options, soft, quantize, clip):
    from action_llm_recipes.stages.trained_weights import choose_trained

    read = processor(num_soft_prompts=soft)
    model = compose(
        vtem=tiny_vtem(quantize=quantize),
        cls=ActionLLMForConditionalGeneration,
        injection_layer=None if quantize else 0,
        num_soft_prompts=soft,
        **options,
    )
    choose_trained(model, "prompt" if soft else "prefix")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == ({"model.action_embedding.soft_prompts"} if soft else {"model.prefix.weight"})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    labels, classifier = torch.tensor([2]), model.as_classifier().train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.3, weight_decay=0.0)
    losses = []
    for _ in range(30):
        loss = classifier(**read(clip), labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 5
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in trained), name


def test_class_scores_with_soft_prompts_are_exact(clip):
    model, read = compose(num_soft_prompts=3), processor(num_soft_prompts=3)
    assert read.prompt([5]).startswith("<soft_0><soft_1><soft_2><act_5> Given the sequence of visual events")
    inputs = read(action_ids=[[1, 2, 3], [7]])
    with torch.no_grad():
        outputs = {method: model(**inputs, method=method).logits for method in ("trie", "cache")}
        for row, sentence in enumerate(([1, 2, 3], [7])):
            for column, name in enumerate(CLASS_NAMES):
                prompt, label = read.encode_prompt_and_label(read.prompt(sentence), name)
                logits = model.as_generator()(torch.tensor([prompt + label])).logits.log_softmax(-1)
                alone = logits[0, len(prompt) - 1 : -1].gather(-1, torch.tensor(label)[:, None]).sum()
                for found in outputs.values():
                    torch.testing.assert_close(found[row, column], alone, rtol=1e-4, atol=1e-4)
    table = model.model.language_model.get_input_embeddings().weight
    distances = torch.cdist(model.model.action_embedding.soft_prompts, table)
    assert distances.min(dim=1).values.max() < 1e-5  # they begin as words


# ----------------------------------------------------------------------------------------------------- saved and loaded


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("options", [{"prefix_length": 4}, {"num_soft_prompts": 3}, {"injection_layer": 0}])
def test_saved_and_loaded_to_the_bit(reference, options, clip, tmp_path):
    torch.manual_seed(0)
    whole = AutoModelForImageTextToText.from_config(VISION_LANGUAGE["llava"](len(tiny_tokenizer()) + 7))
    whole.save_pretrained(tmp_path / "llava")
    llm = load_language_model(str(tmp_path / "llava"))
    read = processor(num_soft_prompts=options.get("num_soft_prompts", 0))
    quantize = "injection_layer" not in options
    home = str(tmp_path / "llava") if reference else None
    model = compose(llm, tiny_vtem(quantize=quantize), llm_name_or_path=home, **options)
    model.save_pretrained(tmp_path / "saved")
    loaded = ActionLLMForClassification.from_pretrained(tmp_path / "saved")
    own, found = model.state_dict(), loaded.state_dict()
    assert own.keys() == found.keys() and all(torch.equal(own[name], found[name]) for name in own)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**read(clip)).logits, model(**read(clip)).logits, rtol=1e-6, atol=1e-5)
    assert not any(p.requires_grad for p in loaded.model.action_model.parameters())


def test_an_adapter_for_another_model(tmp_path):
    for name, layers in (("own", 2), ("other", 3)):
        config = VISION_LANGUAGE["llava"](len(tiny_tokenizer()) + 7)
        config.text_config.num_hidden_layers = layers
        AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path / name)
    llm = load_language_model(str(tmp_path / "own"))
    model = compose(llm, llm_name_or_path=str(tmp_path / "own"), prefix_length=4, prefix_layers=[0, 1])
    model.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    config["llm_name_or_path"] = str(tmp_path / "other")
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"trained with another language model than .*other: expected num_hidden_layers 2, got 3"
    ):
        ActionLLMForClassification.from_pretrained(tmp_path / "saved")


def test_the_folder_loads_without_the_project(clip, tmp_path):
    folder = tmp_path / "saved"
    model, read = compose(prefix_length=4), processor()
    model.save_pretrained(folder)
    read.save_pretrained(folder)
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    run = python("-c", LOAD_ALONE, folder, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    name, logits, probabilities = json.loads(run.stdout.splitlines()[-1])
    assert name == "ActionLLMForClassification"
    with torch.no_grad():
        assert logits == [float(x).hex() for x in model(**read(clip)).logits[0]]
    np.testing.assert_allclose(
        model.timeline(read, clip, seconds=0.5, stride=0.25).probabilities, probabilities, atol=1e-9
    )


def test_a_hundred_and_twenty_names_and_all_events_fit_the_context_of_llava():
    from action_llm_datasets.protocols import ntu_class_names

    names = ntu_class_names()
    assert len(names) == 120
    prompt = processor(class_names=names, list_classes=True).prompt([0] * 512)
    tokens, letters = prompt.count("<act_0>"), prompt.replace("<act_0>", "")
    # No tokenizer needs more words than letters, and LLaVA's needs a third of that: it fits even so.
    assert tokens == 512 and 512 + len(letters) < 4096


# ------------------------------------------------------------------------------------------------------------ timelines


@settings(max_examples=100, deadline=None)
@given(
    shares=st.lists(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=30), min_size=1, max_size=3),
    duration=st.floats(0.1, 20.0),
    seconds=st.floats(0.5, 6.0),
    share=st.floats(0.1, 1.0),
)
def test_windows_cover_the_video_and_hold_what_is_in_them_at_each_place(shares, duration, seconds, share):
    events = []
    for place, own in enumerate(shares):
        borders = [*(duration * np.cumsum([0, *own]) / sum(own))[:-1].tolist(), duration]
        events += [VisualEvent(0, a, b, None, place) for a, b in itertools.pairwise(borders)]
    events.sort(key=lambda event: (event.end, event.place))
    stride = share * seconds
    windows = list(windows_of_events([EventBlock(events, [], events[-1].end)], seconds, stride))
    assert windows[0].start == 0 and windows[-1].end == pytest.approx(duration)
    for window, after in itertools.pairwise(windows):
        assert after.start == pytest.approx(window.start + stride) and after.start <= window.end + 1e-9
    for window in windows:
        contents = [next(i for i, event in enumerate(events) if event is other) for other in window.content]
        assert contents == sorted(contents)
        for place in range(len(shares)):
            own = [i for i, e in enumerate(events) if e.place == place]
            inside = [i for i in own if window.start < (events[i].start + events[i].end) / 2 <= window.end]
            found = [i for i in contents if i in own]
            if inside:
                assert found == inside
            else:
                (only,) = found
                middle = (window.start + window.end) / 2
                assert events[only].start - 1e-9 <= middle <= events[only].end + 1e-9


def test_a_timeline_is_the_mean_of_its_windows(clip):
    model, read = compose(), processor()
    found = model.timeline(read, clip, seconds=0.4, stride=0.2)
    assert isinstance(found, Timeline) and found.events[-1].end == pytest.approx(1.0)
    assert found.starts.tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8]) and found.ends[-1] == pytest.approx(1.0)
    windows = windows_of_events([EventBlock(found.events, [], found.events[-1].end)], 0.4, 0.2)
    rows = [[event.action_id for event in window.content] for window in windows]
    with torch.no_grad():
        each = np.concatenate([model(**read(action_ids=[row])).probabilities.double().numpy() for row in rows])
    expected = [each[0], each[:2].mean(0), each[1:3].mean(0), each[2:4].mean(0), each[3]]
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(found.probabilities.sum(1), 1)
    spans = found.spans()
    assert spans[0].start == 0 and spans[-1].end == pytest.approx(1.0)
    assert all(a.end == b.start and a.label != b.label for a, b in itertools.pairwise(spans))
    other = model.timeline(read, clip, seconds=0.4, stride=0.2, class_names=["jumping", "sitting"])
    assert other.probabilities.shape == (5, 2) and other.class_names == ["jumping", "sitting"]


@pytest.mark.parametrize("scope", ["place", "frame", "raster"])
def test_timelines_and_explanations_of_events_that_have_a_place(scope, clip):
    vtem = tiny_vtem(grid=2, max_events=16, window_cells=32, pooling_scope=scope)
    model, read = compose(vtem=vtem), processor()
    found = model.timeline(read, clip, seconds=0.4, stride=0.2)
    places = {0} if scope == "raster" else {0, 1, 2, 3}
    assert {event.place for event in found.events} == places and found.events[-1].end == pytest.approx(1.0)
    for window in windows_of_events([EventBlock(found.events, [], found.events[-1].end)], 0.4, 0.2):
        assert {event.place for event in window.content} == places
    assert found.ends[-1] == pytest.approx(1.0)
    np.testing.assert_allclose(found.probabilities.sum(1), 1)
    with torch.no_grad():
        outputs = model(**read(clip))
    explanation = model.explain(read, outputs)
    words, times = sentence_of(outputs)
    assert len(explanation.evidence) == len(words)
    for token in explanation.evidence:
        assert (token.action_id, (token.start, token.end)) == (words[token.place], times[token.place])


def test_spans_are_runs_of_the_most_likely_class():
    chances = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [np.nan, np.nan], [0.6, 0.4]])
    starts, ends, known = np.arange(5.0), np.array([1.0, 2.0, 3.0, 4.0, 4.5]), np.array([2.0, 3.0, 4.0, 4.5, 4.5])
    found = Timeline(["a", "b"], starts, ends, chances, known, [], np.zeros(len(starts), bool)).spans()
    assert [span[:3] for span in found] == [
        (0.0, 2.0, "a"),
        (2.0, 3.0, "b"),
        (4.0, 4.5, "a"),
    ]  # nobody is seen before 4 s
    assert [span.probability for span in found] == pytest.approx([0.8, 0.8, 0.6])
    assert [span.known for span in found] == [2.0, 4.0, 4.5]


def test_captions_tell_actions_in_their_order():
    chances, ends = np.array([[0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.8, 0.2]]), np.arange(1.0, 5.0)
    doubts = np.array([False, False, False, True])
    found = Timeline(["wave", "nothing"], ends - 1, ends, chances, ends, [], doubts)
    assert found.caption("nothing") == (
        "2 actions in 4.0 s: wave (1.0 to 2.0 s) and then wave (3.0 to 4.0 s, unlike the training recordings)."
    )
    assert found.caption().count(", then ") == 2 and found.caption().startswith("4 actions in 4.0 s: nothing (")
    one, none = (
        Timeline(["wave", "nothing"], ends[:2] - 1, ends[:2], rows, ends[:2], [], doubts[:2]).caption("nothing")
        for rows in (chances[:2], chances[[0, 2]])
    )
    assert (one, none) == ("1 action in 2.0 s: wave (1.0 to 2.0 s).", "No action in 2.0 s.")


@pytest.mark.parametrize(("count", "cuts"), [(1, []), (43, [1, 8, 9, 30]), (40, [16, 21])])
def test_a_stream_has_the_windows_of_the_whole_video_wherever_it_is_cut(count, cuts):
    """Still and restless moments, in which events are longer and shorter than a window."""
    vtem, generator = tiny_vtem(grid=2, max_events=16, window_cells=32), np.random.default_rng(count)
    speeds = np.repeat(generator.uniform(0, 3, 20), 5)[:count]
    steps = generator.normal(size=(count, 4, 1, 16)) * speeds[:, None, None, None]
    features, cuts = torch.tensor(steps.cumsum(0), dtype=torch.float32), [*cuts, count]
    parts = [{"input_features": features[a:b]} for a, b in itertools.pairwise([0, *cuts])]
    blocks = list(stream_events(vtem, parts, 10.0))
    once = list(stream_events(vtem, [{"input_features": features}], 10.0))
    key = [(block.end, [event[:3] for event in (*block.ended, *block.unfinished)]) for block in blocks]
    assert key == [(block.end, [event[:3] for event in (*block.ended, *block.unfinished)]) for block in once]
    events = [event for block in blocks for event in block.ended]
    longest = max(event.end - event.start for event in events)
    for seconds in (0.5, longest + 0.5):
        found = list(windows_of_events(blocks, seconds, 0.3))
        whole = list(windows_of_events([EventBlock(events, [], blocks[-1].end)], seconds, 0.3))
        assert [window[:2] for window in found] == [window[:2] for window in whole]
        for window, other in zip(found, whole, strict=True):
            # A block lasts 0.8 s. A window waits for its own length, and no more.
            assert window.end <= window.known + 1e-6 <= min(window.end + seconds + 0.8, blocks[-1].end) + 2e-6
            if seconds > longest:
                assert [event[:3] for event in window.content] == [event[:3] for event in other.content]


def test_a_timeline_is_the_stream_of_its_steps(clip):
    model, read = compose(), processor()
    whole = model.timeline(read, clip, seconds=0.4, stride=0.2)
    steps = list(model.stream_timeline(read, clip, seconds=0.4, stride=0.2))
    assert [step.start for step in steps] == whole.starts.tolist() and [
        step.end for step in steps
    ] == whole.ends.tolist()
    assert [step.known for step in steps] == whole.known.tolist()
    np.testing.assert_allclose([step.probabilities for step in steps], whole.probabilities, atol=1e-6)


def test_settings_of_a_timeline_are_checked_before_the_video_is_read():
    model, read = compose(), processor()
    for wrong, message in (
        ({"stride": 0}, "or it leaves gaps; got 0"),
        ({"class_names": []}, "the class list is empty"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            model.timeline(read, "there is no such file", **wrong)


def test_what_has_no_timeline(clip):
    model = compose(vtem=tiny_vtem(quantize=False), injection_layer=0)
    with pytest.raises(ValueError, match="the vtem of this recogniser has no codebook"):
        model.timeline(processor(), clip)
    with pytest.raises(ValueError, match=r"at most the window of 1.0 s, or it leaves gaps; got 2"):
        compose().timeline(processor(), clip, seconds=1.0, stride=2.0)
    whole = processor()
    whole.feature_extractor.segment_seconds = None
    with pytest.raises(ValueError, match="set segment_seconds; it is None"):
        compose().timeline(whole, clip)


@pytest.mark.parametrize("share", [0.5, 0.75, 0.85])
def test_a_video_that_ends_early_in_a_stream(share, tmp_path):
    """The container promises forty seconds, the file has been cut off: what there is becomes events, with a warning."""
    whole = tiny_video(1200, container="matroska", key_every=10)
    (tmp_path / "cut.mkv").write_bytes(whole[: int(share * len(whole))])
    with av.open(tmp_path / "cut.mkv") as file:
        last = max(frame.time for frame in file.decode(video=0))
    assert last < 38
    with pytest.warns(UserWarning, match=r"cut\.mkv: decoding stopped at .* s of 40"):
        batches = ({"pixel_values": part} for part in processor().feature_extractor.stream(tmp_path / "cut.mkv"))
        events = [event for block in stream_events(tiny_vtem(), batches, 10.0) for event in block.ended]
    # The last frame stays there for a second, and no longer.
    assert last < events[-1].end < last + 1.2
