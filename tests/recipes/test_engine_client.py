"""Class probabilities through a serving engine: those of the recogniser, by the documented requests of vLLM and SGLang."""

import importlib.util
import json
import socket

import pytest
import torch
from serving_engine import ServingEngine
from tiny_models import CLASS_NAMES, NUM_ACTION_TOKENS, tiny_action_model, tiny_llm, tiny_processor
from transformers import AutoTokenizer

from action_llm import ActionLLMForClassification
from action_llm.label_scoring import label_trie
from action_llm_recipes.hub import engine_client, export

R, U = 3, NUM_ACTION_TOKENS
SENTENCES = {1: [3, 3, 15, 0, 7], R: [[3, U + 3, 2 * U], [15, U, 2 * U + 7], [0, U + 1, 2 * U + 1], [3, U + 3, 2 * U]]}


@pytest.fixture(
    scope="module", params=[(1, False, 0), (R, False, 0), (R, True, 2)], ids=["tokens", "sums", "constrained"]
)
def exported(request, tmp_path_factory):
    """A recogniser and its processor, and its export: one token a word, sums of codes, sums with soft prompts."""
    codes, constrained, soft = request.param
    processor = tiny_processor(num_action_tokens=codes * U, codes_per_word=codes, num_soft_prompts=soft)
    model = ActionLLMForClassification.from_llm(
        tiny_llm(),
        action_token_offset=processor.action_token_offset,
        action_model=tiny_action_model(num_codebooks=codes),
        class_names=CLASS_NAMES,
        constrained_scoring=constrained,
        num_soft_prompts=soft,
    )
    folder = tmp_path_factory.mktemp("exported")
    model.save_pretrained(folder / "recogniser")
    processor.save_pretrained(folder / "recogniser")
    export.main(export.ExportArguments(str(folder / "recogniser"), str(folder / "plain")))
    return model, processor, folder / "plain"


def module_of(folder):
    """The client in the folder of an export."""
    spec = importlib.util.spec_from_file_location("exported_engine_client", folder / "client" / "engine_client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def client_of(folder, url: str, engine: str):
    return module_of(folder).EngineClient(url, engine)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_an_engine_gives_the_probabilities_of_the_recogniser(exported, engine):
    model, processor, folder = exported
    sentence = SENTENCES[processor.codes_per_word]
    with torch.no_grad():
        expected = model(**processor(action_ids=[sentence]))
    with ServingEngine(folder) as server:
        client = client_of(folder, server.url, engine)
        scores = torch.tensor(client.scores(sentence))
        count = len(server.requests)
        probabilities = client.probabilities(sentence)
    torch.testing.assert_close(scores, expected.logits[0], rtol=1e-4, atol=1e-4)
    assert list(probabilities) == CLASS_NAMES
    torch.testing.assert_close(
        torch.tensor(list(probabilities.values())), expected.probabilities[0], rtol=1e-4, atol=1e-5
    )
    # A request for each beginning of a name; with constrained scoring, for those that several tokens follow.
    labels = tuple(map(tuple, processor.label_ids()))
    beginnings = label_trie(labels, False).num_nodes + 1
    if model.config.constrained_scoring:
        assert count == int((torch.bincount(label_trie(labels, True).edge_parents) > 1).sum()) < beginnings
    else:
        assert count == beginnings


def test_sums_cannot_be_sent_as_text_and_other_sentences_are_refused(exported):
    _, processor, folder = exported
    tokenizer, codes = AutoTokenizer.from_pretrained(folder), processor.codes_per_word
    files = {path.name for path in (folder / "client").iterdir()}
    assert files == {"engine_client.py", "recogniser.json"} | ({"words.safetensors"} if codes > 1 else set())
    page = (folder / "README.md").read_text()
    if codes > 1:
        with pytest.raises(Exception, match=r"sums of 3 embeddings: send them by client/engine_client.py"):
            tokenizer.apply_chat_template([{"role": "user", "content": "<act_0><act_16><act_32>"}])
        assert "--enable-prompt-embeds" in page and "apply_chat_template" not in page
    with ServingEngine(folder) as server:
        client = client_of(folder, server.url, "vllm")
        for other in ([], SENTENCES[R] if codes == 1 else SENTENCES[1], [[0, 1]], [codes * U], [[U, 0, 2 * U]]):
            with pytest.raises(
                ValueError, match=rf"expected a list of {'words, each of 3 tokens' if codes > 1 else 'tokens'}"
            ):
                client.scores(other)
        assert not server.requests
        server.knows_tokens = False
        with pytest.raises(
            RuntimeError, match=r"did not return the log-probabilities of the tokens .* Update the engine"
        ):
            client.scores(SENTENCES[codes])
    with pytest.raises(ValueError, match="expected vllm or sglang"):
        client_of(folder, "http://127.0.0.1:1", "tgi")


def test_the_client_is_a_command_that_needs_no_project(exported, monkeypatch, capsys):
    model, processor, folder = exported
    sentence = SENTENCES[processor.codes_per_word]
    assert "action_llm" not in (folder / "client" / "engine_client.py").read_text()
    with ServingEngine(folder) as server:
        monkeypatch.setattr("sys.argv", ["engine_client.py", server.url, "vllm", json.dumps(sentence)])
        module_of(folder).main()
    with torch.no_grad():
        best = model.config.id2label[int(model(**processor(action_ids=[sentence])).logits.argmax())]
    assert capsys.readouterr().out.splitlines()[0].endswith(f"%  {best}")


def client_of_logits(folder, monkeypatch, logits: torch.Tensor, silent: int, temperature: float = 1.0):
    """A client of vLLM whose recogniser has a class for each of its output tokens; `silent` more have the logit 0."""
    count = len(logits)
    recogniser = {"class_names": [f"class {token}" for token in range(count)], "temperature": temperature}
    recogniser |= {
        "label_ids": [[token] for token in range(count)],
        "before": [],
        "after": [],
        "words": "a list of tokens",
    }
    recogniser |= {"num_action_tokens": 8, "action_token_offset": count, "codes_per_word": 1, "run_length_ids": None}
    recogniser |= {"constrained_scoring": False, "silent_tokens": {"first": count, "count": silent}}
    (folder / "recogniser.json").write_text(json.dumps(recogniser))
    client, bodies = engine_client.EngineClient("http://127.0.0.1:1", folder=folder), []
    log_probs = torch.cat([logits, torch.zeros(silent)]).log_softmax(-1)

    def answer(path: str, body: dict) -> dict:
        bodies.append(body)
        given = {f"token_id:{token}": float(log_probs[token]) for token in body["logprob_token_ids"]}
        return {"choices": [{"logprobs": {"top_logprobs": [given]}}]}

    monkeypatch.setattr(client, "_post", answer)
    return client, bodies


def test_many_names_take_several_requests_and_probabilities_have_the_temperature(tmp_path, monkeypatch):
    logits = torch.randn(300, generator=torch.Generator().manual_seed(0))
    client, bodies = client_of_logits(tmp_path, monkeypatch, logits, silent=5, temperature=2.5)
    torch.testing.assert_close(torch.tensor(client.scores([3])), logits.log_softmax(-1))
    assert [len(body["logprob_token_ids"]) for body in bodies] == [128, 128, 45]  # 300 and the first silent one
    expected = (logits / 2.5).softmax(-1)
    torch.testing.assert_close(torch.tensor(list(client.probabilities([3]).values())), expected)


def test_no_probabilities_where_nearly_all_is_of_tokens_that_the_recogniser_lacks(tmp_path, monkeypatch):
    logits = torch.tensor([-4.0, -5.0, -4.5])
    client, _ = client_of_logits(tmp_path, monkeypatch, logits, silent=2)  # 98 % of the probability
    torch.testing.assert_close(torch.tensor(client.scores([3])), logits.log_softmax(-1), rtol=1e-4, atol=1e-4)
    client, _ = client_of_logits(tmp_path, monkeypatch, logits - 8, silent=2)
    with pytest.raises(
        RuntimeError, match=r"100.00% of the probability .* expected at most 99%.* with the recogniser"
    ):
        client.scores([3])


def test_a_server_that_does_not_answer(tmp_path, monkeypatch):
    client_of_logits(tmp_path, monkeypatch, torch.zeros(3), silent=0)
    monkeypatch.setattr(engine_client, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(
            RuntimeError, match=rf"{url}/generate did not answer \(timed out\): expected .* 0.2 seconds"
        ):
            engine_client.EngineClient(url, "sglang", tmp_path).scores([3])
    with pytest.raises(RuntimeError, match=r"did not answer \(.*refused\)"):
        engine_client.EngineClient(url, "vllm", tmp_path).scores([3])
