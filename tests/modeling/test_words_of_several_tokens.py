"""Words of several tokens: residual codebooks, their ids, and one place of a language model that reads their sum."""

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CLASS_NAMES, NUM_ACTION_TOKENS, tiny_action_model, tiny_processor, tiny_recogniser
from transformers import pipeline

from action_llm import ActionLLMForClassification, ActionLLMProcessor, ActionVQVAEConfig, ActionVQVAEModel
from action_llm.action_sentence import WordIds
from action_llm.codebook import EuclideanCodebook, ResidualQuantizer

R, U = 3, NUM_ACTION_TOKENS


def walk(frames=24, seed=0):
    return np.random.default_rng(seed).normal(size=(frames, 25, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def parts():
    return tiny_recogniser("skeletons", num_codebooks=R)


# --- codebooks


def codebooks(number, size=8, dim=5, **settings):
    torch.manual_seed(0)
    made = ResidualQuantizer([EuclideanCodebook(size, dim, 0.9, **settings) for _ in range(number)])
    for level, codebook in enumerate(made):
        torch.nn.init.normal_(codebook.weight, std=2.0**-level)
        if hasattr(codebook, "initialized"):
            codebook.initialized.fill_(False)
        if hasattr(codebook, "average_usage"):
            codebook.average_usage.fill_(1 / size)
    return made


@given(st.integers(1, 4), st.integers(0, 100))
def test_each_codebook_is_for_what_is_left(number, seed):
    quantizer = codebooks(number).eval()
    latents = torch.randn(7, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    found = quantizer(latents)
    rest = latents.double().numpy()
    losses = 0.0
    for level, codebook in enumerate(quantizer):
        codes = codebook.weight.detach().double().numpy()
        nearest = ((rest[:, None] - codes[None]) ** 2).sum(-1).argmin(1)
        assert found.ids[:, level].tolist() == nearest.tolist()
        losses += ((rest - codes[nearest]) ** 2).mean()
        rest = rest - codes[nearest]
    np.testing.assert_allclose(found.embeds.detach().numpy(), latents.numpy() - rest, atol=1e-5)
    assert found.embedding_loss.item() == pytest.approx(losses, rel=1e-4)
    assert torch.equal(quantizer.nearest(latents), found.ids)
    torch.testing.assert_close(found.distances, torch.cdist(latents, quantizer[0].weight))


def test_every_codebook_follows_what_it_is_for_and_more_of_them_leave_less():
    torch.manual_seed(0)
    latents = torch.randn(256, 5)
    left = []
    for number in (1, 2, 4):
        quantizer = codebooks(number, train_by_ema=True, kmeans_init=True).train()
        for _ in range(30):
            quantizer(latents)
        left.append((quantizer.eval()(latents).embeds - latents).square().mean().item())
    assert left[2] < 0.6 * left[1] < 0.6 * 0.6 * left[0]


def test_the_embedding_loss_moves_codes_and_not_latents():
    quantizer = codebooks(R).train()
    latents = torch.randn(7, 5, requires_grad=True)
    quantizer(latents).embedding_loss.backward()
    assert latents.grad is None and all(codebook.weight.grad.abs().sum() > 0 for codebook in quantizer)


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
    scale = model.latent_scale()
    assert outputs.commitment_loss.item() == pytest.approx(
        ((latents - codes) / scale).square().mean().item(), rel=1e-4
    )
    model.save_pretrained(tmp_path)
    again = ActionVQVAEModel.from_pretrained(tmp_path).encode(batch, feature_attention_mask=mask)
    assert torch.equal(again.action_ids, sentence.action_ids)


def test_streams_are_joints_bones_and_motion():
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
    with pytest.raises(StrictDataclassClassValidationError, match="`joint_parents` must name a joint for each of 25"):
        ActionVQVAEConfig(streams=["bones"])
    with pytest.raises(
        StrictDataclassClassValidationError, match="`streams` must be some of joints, bones, motion, each once"
    ):
        ActionVQVAEConfig(streams=["joints", "speed"])


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
    found = model.explain(processor, walk())
    assert {one.action_id for one in found.evidence} == {token["id"] for token in best["tokens"]}
    assert found.label in CLASS_NAMES and len(found.evidence) == 6


def test_trained_action_words_are_trained_through_their_sums(parts):
    model, processor = tiny_recogniser("skeletons", num_codebooks=R)
    embedding = model.get_input_embeddings()
    embedding.weight.requires_grad_(True)
    words = [[3, U + 5, 2 * U + 1]]
    model(**processor(action_ids=[words])).logits.sum().backward()
    assert embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist() == words[0]
