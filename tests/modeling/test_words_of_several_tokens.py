"""Words of several tokens: residual codebooks, their ids, and one place of a language model that reads their sum."""

import json

import numpy as np
import pytest
import torch
from fresh_python import python
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tiny_models import CLASS_NAMES, NUM_ACTION_TOKENS, tiny_action_model, tiny_llm, tiny_processor, tiny_recogniser
from transformers import AutoModelForCausalLM, pipeline
from two_processes import on_two_ranks

from action_llm import ActionLLMForClassification, ActionLLMProcessor, ActionVQVAEConfig, ActionVQVAEModel
from action_llm.action_sentence import WordIds
from action_llm.codebook import EuclideanCodebook, residual_quantize

R, U = 3, NUM_ACTION_TOKENS


def walk(frames=24, seed=0):
    return np.random.default_rng(seed).normal(size=(frames, 25, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def parts():
    return tiny_recogniser("skeletons", num_codebooks=R)


# --- codebooks


def codebooks(number, size=8, dim=5, **settings):
    torch.manual_seed(0)
    made = [EuclideanCodebook(size, dim, 0.9, **settings) for _ in range(number)]
    for level, codebook in enumerate(made):
        torch.nn.init.normal_(codebook.weight, std=2.0**-level)
        if hasattr(codebook, "initialized"):
            codebook.initialized.fill_(False)
        if hasattr(codebook, "average_usage"):
            codebook.average_usage.fill_(1 / size)
    return made


@given(st.integers(1, 4), st.integers(0, 100))
def test_each_codebook_is_for_what_is_left(number, seed):
    latents = torch.randn(7, 5, generator=torch.Generator().manual_seed(seed))
    made = [codebook.eval() for codebook in codebooks(number)]
    found, rests = residual_quantize(made, latents)
    rest = latents.double().numpy()
    for codebook, one, given_rest in zip(made, found, rests, strict=True):
        np.testing.assert_allclose(given_rest.numpy(), rest, atol=1e-5)
        codes = codebook.weight.detach().double().numpy()
        nearest = ((rest[:, None] - codes[None]) ** 2).sum(-1).argmin(1)
        assert one.ids.tolist() == nearest.tolist()
        rest = rest - codes[nearest]


def test_every_codebook_follows_what_it_is_for_and_more_of_them_leave_less():
    latents = torch.randn(40, 64, 5, generator=torch.Generator().manual_seed(0))
    left = []
    for number in (1, 2, 4):
        made = codebooks(number, size=16, train_by_ema=True, kmeans_init=True)
        for batch in latents:
            residual_quantize(made, batch)
        assert all(codebook.initialized for codebook in made)
        found, _ = residual_quantize([codebook.eval() for codebook in made], latents.flatten(0, 1))
        assert min(len(one.ids.unique()) for one in found) > 8
        left.append((sum(one.embeds for one in found) - latents.flatten(0, 1)).square().mean().item())
    assert left[2] < 0.6 * left[1] < 0.6 * 0.6 * left[0]


def test_codebooks_start_one_after_the_other():
    """With as many latents as codes, the first one leaves nothing of them: the second would be all zeros."""
    made = codebooks(3, kmeans_init=True)
    for step in range(3):
        residual_quantize(made, torch.randn(8, 5, generator=torch.Generator().manual_seed(step)))
        assert [bool(codebook.initialized) for codebook in made] == [level <= step for level in range(3)]
    assert all(codebook.weight.norm(dim=1).mean() > 0.3 for codebook in made)


# --- the action model


def test_ids_are_one_of_each_codebook_and_decode_to_the_sum_of_their_codes(tmp_path):
    model = tiny_action_model(num_codebooks=R, codebook_init_norm=1.0)
    assert model.codebook.shape == (R * U, model.config.codebook_dim) and model.config.num_action_tokens == R * U
    batch = torch.randn(2, 12, 75)
    mask = torch.ones(2, 12)
    mask[1, 8:] = 0
    sentence = model.encode(batch, feature_attention_mask=mask)
    assert sentence.action_ids.shape == (2, 3, R)
    valid = sentence.attention_mask.bool()
    assert (sentence.action_ids[valid] // U == torch.arange(R)).all() and not sentence.action_ids[~valid].any()
    embeds = model.codebook[sentence.action_ids].sum(2) * valid[..., None]
    torch.testing.assert_close(sentence.action_embeds, embeds)
    decoded = model.decode(action_ids=sentence.action_ids, attention_mask=sentence.attention_mask)
    torch.testing.assert_close(decoded, model.decode(action_embeds=embeds, attention_mask=sentence.attention_mask))
    outputs = model(batch, feature_attention_mask=mask)
    assert torch.equal(outputs.action_ids, sentence.action_ids)
    latents, codes = sentence.latents[valid], embeds[valid]
    scale = model.latent_scale
    assert outputs.commitment_loss.item() == pytest.approx(
        ((latents - codes) / scale).square().mean().item(), rel=1e-4
    )
    rest, expected = latents / scale, 0.0
    for level in range(R):
        code = model.codebook[sentence.action_ids[valid][:, level]] / scale
        expected += (code - rest).square().mean().item()
        rest = rest - code
    assert outputs.embedding_loss.item() == pytest.approx(expected, rel=1e-4)
    (own,) = torch.autograd.grad(outputs.embedding_loss, [model.refinements[1].weight])
    assert own.abs().sum() > 0
    for wrong, why in (
        (sentence.action_ids[..., :2], "must have the shape"),
        (sentence.action_ids.flip(-1), "must be a token of each of 3 codebooks of 16, in their order"),
    ):
        with pytest.raises(ValueError, match=why):
            model.decode(action_ids=wrong)
    model.save_pretrained(tmp_path)
    again = ActionVQVAEModel.from_pretrained(tmp_path).encode(batch, feature_attention_mask=mask)
    assert torch.equal(again.action_ids, sentence.action_ids)


def test_streams_are_joints_bones_and_motion(tmp_path):
    parents = [max(joint - 1, 0) for joint in range(25)]
    model = tiny_action_model(streams=["joints", "bones", "motion"], joint_parents=parents, num_persons=2, fps=20.0)
    joints = torch.randn(1, 150, 6)
    joints[:, 75:, :3] = 0  # the second person comes later
    people = joints.view(2, 25, 3, 6)
    expected = torch.zeros(3, 2, 25, 3, 6)
    expected[0] = people
    for person in range(2):
        for joint in range(25):
            for frame in range(6):
                expected[1, person, joint, :, frame] = (
                    people[person, joint, :, frame] - people[person, parents[joint], :, frame]
                )
                if frame and not (person == 1 and frame == 3):
                    step = people[person, joint, :, frame] - people[person, joint, :, frame - 1]
                    expected[2, person, joint, :, frame] = step * 20 / 5
    torch.testing.assert_close(model.encoder.streams(joints), expected.view(1, 450, 6))
    assert model.encode(joints[..., :4].transpose(1, 2)).action_ids.shape == (1, 1)
    # Small steps far from the origin: in half precision they would be gone before they are taken.
    seen = []
    model.save_pretrained(tmp_path)
    half = ActionVQVAEModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    half.encoder.streams.register_forward_hook(lambda _, given, made: seen.append(made))
    half.encode((joints[..., :4] * 1e-3 + 3).transpose(1, 2))
    assert seen[0].dtype == torch.float32
    with pytest.raises(ValueError, match="`joint_parents` must name a parent for each of the 25 joints"):
        ActionVQVAEConfig(streams=["bones"])
    with pytest.raises(
        ValueError, match="`streams` must be some of joints, bones, motion, body, path, relation, each once"
    ):
        ActionVQVAEConfig(streams=["joints", "speed"])


def test_streams_of_body_and_path():
    pelvis = [3, 7]
    model = tiny_action_model(streams=["body", "path"], pelvis=pelvis, num_persons=2, fps=20.0)
    joints = torch.randn(2, 150, 6)
    joints[:, 75:, :2] = 0  # the second person comes later
    people = joints.view(2, 2, 25, 3, 6)
    middle = (people[:, :, 3] + people[:, :, 7]) / 2
    path = torch.zeros(2, 2, 3, 6)
    path[..., 1:] = (middle[..., 1:] - middle[..., :-1]) * 20 / 5
    path[:, 1, :, 2] = 0
    expected = torch.cat([(people - middle[:, :, None]).flatten(1, 3), path.flatten(1, 2)], dim=1)
    torch.testing.assert_close(model.encoder.streams(joints), expected)
    assert expected.shape[1] == model.config.num_stream_channels == 156
    # Where a person stands does not matter.
    moved = joints + torch.randn(2, 1, 3, 1).expand(2, 50, 3, 1).reshape(2, 150, 1) * (joints != 0)
    torch.testing.assert_close(model.encoder.streams(moved), expected, atol=1e-5, rtol=1e-5)
    # The first person is at the origin in the first frame, but present.
    centred = joints - middle[:, :1, :, :1].expand(2, 50, 3, 1).reshape(2, 150, 1) * (joints != 0)
    torch.testing.assert_close(model.encoder.streams(centred), expected, atol=1e-5, rtol=1e-5)
    for wrong in (None, [], [25], [-1]):
        with pytest.raises(ValueError, match="`pelvis` must name some of the 25 joints"):
            ActionVQVAEConfig(streams=["path"], pelvis=wrong)


# --- ids


@given(st.integers(1, 6), st.integers(2, 300), st.data())
def test_a_word_is_one_number_and_back(codes_per_word, size, data):
    ids = WordIds(100, 100 + codes_per_word * size + 1, codes_per_word, codes_per_word * size)
    code = st.integers(0, size - 1)
    words = data.draw(st.lists(st.lists(code, min_size=codes_per_word, max_size=codes_per_word), max_size=4))
    tokens = torch.tensor(words, dtype=torch.long).view(-1, codes_per_word) + torch.arange(codes_per_word) * size
    numbers = ids.of_tokens(tokens)
    assert (numbers >= ids.first).all() and torch.equal(ids.tokens(numbers), tokens)
    assert len(set(numbers.tolist())) == len({tuple(word) for word in words})
    text = [7, *(tokens.flatten() + 100).tolist(), 8]
    assert ids.fold(text) == [7, *numbers.tolist(), 8]


def test_tokens_that_make_no_word_stay_as_they_are():
    ids = WordIds(100, 200, 2, 20)
    assert ids.fold([5, 100, 6, 113, 103, 111, 104]) == [5, 100, 6, 113, 200 + 31, 104]


def test_words_that_cannot_be_numbered_are_refused():
    with pytest.raises(ValueError, match="8 codebooks of 256 tokens make more words than 64 bits can number"):
        WordIds(100, 5000, 8, 8 * 256)
    with pytest.raises(ValueError, match="num_action_tokens must be a multiple of codes_per_word, got 16 and 3"):
        tiny_processor(codes_per_word=3)


# --- the language model


def test_a_place_reads_the_sum_of_its_tokens(parts):
    model, processor = parts
    words = [[3, U + 5, 2 * U + 1], [0, U, 2 * U]]
    prompt = processor.prompt(words)
    assert f"<act_3><act_{U + 5}><act_{2 * U + 1}><act_0>" in prompt
    ids = torch.tensor([processor.encode_prompt_and_label(prompt)[0]])
    places = (ids >= processor.word_ids.first).nonzero()[:, 1]
    assert len(places) == 2 and processor.word_ids.tokens(ids[0, places]).tolist() == words
    embeds = model.get_input_embeddings()(ids)[0, places]
    torch.testing.assert_close(embeds, model.model.action_model.codebook[torch.tensor(words)].sum(1))
    # One place a word: the rest of the prompt is that of a plain one.
    plain = tiny_processor().encode_prompt_and_label(tiny_processor().prompt([3, 5]))[0]
    assert ids.shape[1] == len(plain)


def test_a_recording_and_its_sentence_get_the_same_probabilities(parts, tmp_path):
    model, processor = parts
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for one, with_ in ((model, processor), (
        ActionLLMForClassification.from_pretrained(tmp_path), ActionLLMProcessor.from_pretrained(tmp_path)
    )):  # fmt: skip
        read = one(**with_([walk(), walk(16, 1)]))
        assert read.action_ids.shape == (2, 6, R)
        sentences = [
            ids[mask.bool()].tolist() for ids, mask in zip(read.action_ids, read.action_attention_mask, strict=True)
        ]
        torch.testing.assert_close(one(**with_(action_ids=sentences)).logits, read.logits)
    order = [[2 * U, U, 0]]
    with pytest.raises(ValueError, match="a word is 3 tokens, one of each codebook of 16 in their order"):
        processor.prompt(order)
    with pytest.raises(ValueError, match=r"in their order, got \[3\]"):
        processor.prompt([3])


def test_whole_words_are_left_out_and_named_by_their_first_token(parts):
    model, processor = parts
    recognise = pipeline("action-recognition", model=model, processor=processor, device="cpu")
    (best, *_) = recognise(walk(), explain=True, return_tokens=True)
    assert len(best["tokens"]) == 6 and all(token["token"].count("<act_") == R for token in best["tokens"])
    assert [token["id"] for token in best["tokens"]] == model(**processor(walk())).action_ids[0, :, 0].tolist()
    found = model.explain(processor, model(**processor(walk())), recording=walk())
    named = model.explain(processor, model(**processor(walk(seed=6))), recording=walk(seed=6), name_tokens=True)
    assert named.evidence[0].contribution > 0 and named.evidence[0].word in named.text
    assert {one.action_id for one in found.evidence} == {token["id"] for token in best["tokens"]}
    assert found.label in CLASS_NAMES and len(found.evidence) == 6
    assert {one.word for one in found.evidence} == {token["token"] for token in best["tokens"]}


def test_trained_action_words_are_trained_through_their_sums():
    """As PEFT does it: in a copy of the embedding."""
    model, processor = tiny_recogniser("skeletons", num_codebooks=R)
    targets = r".*language_model.*(q_proj|v_proj)"
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=targets, modules_to_save=["action_embedding"]))
    words = [[3, U + 5, 2 * U + 1]]
    adapted(**processor(action_ids=[words])).logits.sum().backward()
    trained = next(weight for name, weight in adapted.named_parameters() if "action_embedding.modules_to_save" in name)
    assert trained.grad.abs().sum(1).nonzero().flatten().tolist() == words[0]


def test_soft_prompts_stand_between_tokens_and_words():
    processor = tiny_processor(num_action_tokens=R * U, codes_per_word=R, num_soft_prompts=4)
    model = ActionLLMForClassification.from_llm(
        tiny_llm(),
        action_token_offset=processor.action_token_offset,
        action_model=tiny_action_model(num_codebooks=R),
        num_soft_prompts=4,
    )
    assert (processor.word_ids.first, processor.word_ids.codebook_size) == (model.config.word_ids.first, U)
    read = model(**processor(walk()))
    torch.testing.assert_close(model(**processor(action_ids=read.action_ids.tolist())).logits, read.logits)


def test_a_tokenizer_that_takes_words_apart_is_refused(parts, monkeypatch):
    _, processor = parts
    offset = processor.action_token_offset
    apart = {"input_ids": [[5, offset + 3, 6, offset + U, 7]]}
    monkeypatch.setattr(type(processor.tokenizer), "__call__", lambda *texts: apart)
    with pytest.raises(ValueError, match="does not write the tokens of a word directly after each other"):
        processor.encode_prompt_and_label("whatever")


# --- several processes, half precision, remote code


def _codebooks_on_two_ranks():
    """Two processes with half of the latents each move every codebook as one process with all of them does."""
    from torch import distributed

    rank = distributed.get_rank()
    steps = torch.randn(4, 60, 5, generator=torch.Generator().manual_seed(6))
    together = codebooks(R, train_by_ema=True)
    weights, usages = [c.weight.detach().clone() for c in together], [c.average_usage.clone() for c in together]
    for latents in steps:
        residual_quantize(together, latents.chunk(2)[rank])
        rest = latents  # the one process, written out: its codebooks would sum over ranks, too
        for level, weight in enumerate(weights):
            one_hot = torch.nn.functional.one_hot(torch.cdist(rest, weight).argmin(1), len(weight)).float()
            code, share = one_hot @ weight, one_hot.mean(0)
            usage = 0.9 * usages[level] + 0.1 * share
            moved = 0.9 * usages[level][:, None] * weight + 0.1 * one_hot.T @ rest / len(rest)
            weights[level], usages[level] = moved / usage[:, None], usage
            rest = rest - code
    for codebook, weight, usage in zip(together, weights, usages, strict=True):
        torch.testing.assert_close(codebook.weight.data, weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(codebook.average_usage, usage)

    # What is drawn at random, k-means centres and restarts, is the same on both, although their generators are not.
    torch.manual_seed(rank)
    drawn = codebooks(R, kmeans_init=True, dead_code_threshold=0.9)
    for latents in steps:
        residual_quantize(drawn, latents.chunk(2)[rank])
    assert all(codebook.initialized for codebook in drawn)
    for codebook in drawn:
        gathered = [torch.empty_like(codebook.weight.data) for _ in range(2)]
        distributed.all_gather(gathered, codebook.weight.data)
        assert gathered[0].equal(gathered[1])


def test_all_codebooks_stay_equal_over_processes():
    on_two_ranks(_codebooks_on_two_ranks)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_leaves_all_codebooks_in_float32(tmp_path, dtype):
    model = tiny_action_model(num_codebooks=R, codebook_training="ema", codebook_init_norm=1.0)
    model.save_pretrained(tmp_path)
    half = ActionVQVAEModel.from_pretrained(tmp_path, dtype=dtype).eval()
    kept = {name for name, value in half.state_dict().items() if value.dtype == torch.float32}
    of_codebooks = {f"{name}.{part}" for name in ("quantizer", "refinements.0", "refinements.1") for part in
                    ("weight", "average_usage")}  # fmt: skip
    assert kept == of_codebooks and half.codebook.equal(model.codebook)
    features = torch.randn(2, 16, 75, generator=torch.Generator().manual_seed(0))
    sentence = half.encode(features)
    assert sentence.latents.dtype == sentence.action_embeds.dtype == torch.float32
    torch.testing.assert_close(sentence.latents, model.encode(features).latents, rtol=0.1, atol=0.05)
    # The tokens are the nearest ones of these latents, to the last digit.
    rest = sentence.latents.flatten(0, 1)
    for level, codebook in enumerate((half.quantizer, *half.refinements)):
        distances = codebook.distance(rest.double()[:, None], codebook.weight.double()[None])
        chosen = sentence.action_ids[..., level].flatten() - level * U
        assert chosen.equal(distances.argmin(dim=1))
        rest = rest - codebook.weight[chosen]
    output = half.train()(features)
    output.loss.backward()
    assert output.loss.dtype == torch.float32 and output.loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in half.parameters() if weight.grad is not None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_recogniser_in_half_precision_reads_the_same_words(parts, tmp_path, dtype):
    model, processor = parts
    model.save_pretrained(tmp_path)
    half = ActionLLMForClassification.from_pretrained(tmp_path, dtype=dtype).eval()
    assert half.dtype == dtype
    own = {
        value.dtype
        for name, value in half.named_parameters()
        if "language_model" not in name and "lm_head" not in name
    }
    assert own == {torch.float32}
    recordings = [walk(), walk(16, 1)]
    with torch.no_grad():
        whole, read = (one(**processor(recordings)) for one in (model, half))
        sentences = [
            ids[mask.bool()].tolist() for ids, mask in zip(read.action_ids, read.action_attention_mask, strict=True)
        ]
        again = half(**processor(action_ids=sentences))
    assert read.action_ids.equal(whole.action_ids)
    assert torch.equal(read.probabilities.argmax(1), whole.probabilities.argmax(1))
    # bfloat16 has three digits, and names of ten tokens have log-probabilities of some tens.
    torch.testing.assert_close(read.logits, whole.logits, rtol=0.05, atol=1.0 if dtype == torch.bfloat16 else 0.2)
    torch.testing.assert_close(again.logits, read.logits)
    # As it was put together in this precision, to be trained: a word is rounded once, as the sum that it is.
    tiny_llm().save_pretrained(tmp_path / "llm")
    put_together = ActionLLMForClassification.from_llm(
        AutoModelForCausalLM.from_pretrained(tmp_path / "llm", dtype=dtype), action_token_offset=processor.action_token_offset,
        action_model=model.model.action_model, class_names=CLASS_NAMES,
    )  # fmt: skip
    with torch.no_grad():
        assert torch.equal(put_together(**processor(recordings)).logits, read.logits)


LOAD_ALONE = """
import json, sys
sys.modules["action_llm"] = None  # the package may be installed here: as if it were not
import numpy as np, torch
from transformers import AutoModel, AutoProcessor, pipeline

folder = sys.argv[1]
walk = np.load(folder + "/walk.npy")
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    read = model(**processor(walk))
recognise = pipeline("action-recognition", model=folder, trust_remote_code=True, device="cpu")
found = recognise(walk, explain=True, return_tokens=True, versions=2)
half = AutoModel.from_pretrained(folder, trust_remote_code=True, dtype=torch.bfloat16)
model.save_pretrained(folder + "/again")
processor.save_pretrained(folder + "/again")
with torch.no_grad():
    logits = AutoModel.from_pretrained(folder + "/again", trust_remote_code=True)(**processor(walk)).logits
print(json.dumps([[float(x).hex() for x in read.logits[0]], read.action_ids.tolist(), found, torch.equal(logits, read.logits),
                  half(**processor(walk)).action_ids.tolist()]))
"""


def test_the_folder_loads_without_the_project(parts, tmp_path):
    model, processor = parts
    recognise = pipeline("action-recognition", model=model, processor=processor, device="cpu")
    recognise.save_pretrained(tmp_path)
    np.save(tmp_path / "walk.npy", walk())
    done = python("-c", LOAD_ALONE, tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    logits, ids, found, is_same_again, of_half = json.loads(done.stdout.splitlines()[-1])
    with torch.no_grad():
        expected = model(**processor(walk()))
    assert logits == [float(x).hex() for x in expected.logits[0]]
    assert ids == expected.action_ids.tolist() == of_half and is_same_again
    assert found == recognise(walk(), explain=True, return_tokens=True, versions=2)
