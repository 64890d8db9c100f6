"""
Class probabilities of an exported recogniser, computed by a serving engine: vLLM or SGLang.

`export.py` of ActionLLM writes this file beside a model. It needs no other code of that project.

```bash
vllm serve FOLDER --enable-prompt-embeds --max-logprobs 128
python FOLDER/client/engine_client.py http://127.0.0.1:8000 vllm "[[3, 20], [5, 17]]"

python -m sglang.launch_server --model-path FOLDER --disable-radix-cache
python FOLDER/client/engine_client.py http://127.0.0.1:30000 sglang "[[3, 20], [5, 17]]"
```

A sentence is a list of action tokens; a list of lists, if words have several tokens; or a list of pairs (token, length), if the
model reads lengths of runs. A word of several tokens is the sum of their embeddings: its prompts are sent as embeddings.

The probabilities are exact, not counted in sampled answers: for each beginning of a class name, a request asks for the
log-probabilities of the tokens that follow it in class names.

The requests follow the documentation of the engines and were tested against a server that implements it. The engines themselves
were not run.
"""

import argparse
import base64
import io
import json
import math
import urllib.error
import urllib.request
from pathlib import Path

# The most `logprob_token_ids` that vLLM takes in a request.
MAX_TOKENS = 128
# Seconds that a server may take to answer a request.
TIMEOUT = 300
# The largest share of the output tokens that the recogniser lacks. Above it, too few digits of float32 are left for the others.
MOST_SILENT = 0.99


class EngineClient:
    """Scores class names by requests to an engine.

    Args:
        url: address of the server, such as `http://127.0.0.1:8000`.
        engine: `vllm` or `sglang`.
        folder: folder of `recogniser.json` and, if words have several tokens, `words.safetensors`.

    Raises:
        ValueError: if the engine is another.
    """

    def __init__(self, url: str, engine: str = "vllm", folder: str | Path = Path(__file__).parent):
        if engine not in ("vllm", "sglang"):
            raise ValueError(f"engine is {engine!r}: expected vllm or sglang.")
        self.url, self._ask = url.rstrip("/"), self._ask_vllm if engine == "vllm" else self._ask_sglang
        self.recogniser = json.loads(Path(folder, "recogniser.json").read_text(encoding="utf-8"))
        self.words = None
        if self.recogniser["codes_per_word"] > 1:
            from safetensors.torch import load_file

            self.words = load_file(Path(folder, "words.safetensors"))

    def probabilities(self, sentence: list) -> dict[str, float]:
        """Class → probability, as of `ActionLLMForClassification`."""
        scores = [score / self.recogniser["temperature"] for score in self.scores(sentence)]
        total = _log_sum(scores)
        names = self.recogniser["class_names"]
        return {name: math.exp(score - total) for name, score in zip(names, scores, strict=True)}

    def scores(self, sentence: list) -> list[float]:
        """log P(class name | sentence) of each class: `logits` of `ActionLLMForClassification`.

        Raises:
            ValueError: if the sentence is not one of this model.
            RuntimeError: if the server does not answer, refuses a request or does not return what was asked for, or if nearly
                all probability is that of output tokens that the recogniser lacks.
        """
        labels = [tuple(label) for label in self.recogniser["label_ids"]]
        following: dict[tuple, set] = {}
        for label in labels:
            for place, token in enumerate(label):
                following.setdefault(label[:place], set()).add(token)
        prompt = self.prompt(sentence)
        steps = {start: self._step(prompt, start, sorted(tokens)) for start, tokens in following.items()}
        return [sum(steps[label[:place]][token] for place, token in enumerate(label)) for label in labels]

    def _step(self, prompt, start: tuple, tokens: list[int]) -> dict[int, float]:
        """Log-probability of each of `tokens` behind the prompt and the beginning `start` of a class name."""
        constrained, silent = self.recogniser["constrained_scoring"], self.recogniser["silent_tokens"]
        if constrained and len(tokens) == 1:
            return {tokens[0]: 0.0}
        asked = tokens if constrained or not silent["count"] else [*tokens, silent["first"]]
        prompt, given = self._continued(prompt, start), {}
        for first in range(0, len(asked), MAX_TOKENS):
            given |= self._ask(prompt, asked[first : first + MAX_TOKENS])
        total = 0.0
        if constrained:  # renormalised over the tokens that continue a name
            total = _log_sum([given[token] for token in tokens])
        elif silent["count"]:
            # Without the output tokens of the export that the recogniser lacks, which are all as probable as the first.
            share = silent["count"] * math.exp(given[silent["first"]])
            if share > MOST_SILENT:
                raise RuntimeError(
                    f"{share:.2%} of the probability is that of output tokens that only the exported model has, because the "
                    f"logits of the recogniser's own are far below 0: expected at most {MOST_SILENT:.0%}, since the rest is "
                    "too small to be exact. Compute the probabilities of this model with the recogniser itself "
                    "(ActionLLMForClassification)."
                )
            total = math.log1p(-share)
        return {token: given[token] - total for token in tokens}

    # ------------------------------------------------------------------------------------------------ prompts

    def prompt(self, sentence: list):
        """The prompt of a sentence: token ids, or, if words have several tokens, embeddings (length, width).

        Raises:
            ValueError: if the sentence is not one of this model.
        """
        before, after = self.recogniser["before"], self.recogniser["after"]
        if not sentence or not all(map(self._is_word, sentence)):
            raise ValueError(f"the sentence is {str(sentence)[:100]}: expected {self.recogniser['words']}.")
        if self.words is None:
            offset, numbers = self.recogniser["action_token_offset"], self.recogniser["run_length_ids"]
            words = [(offset + word[0], *numbers[word[1] - 1]) if numbers else (offset + word,) for word in sentence]
            return [*before, *(token for word in words for token in word), *after]
        import torch

        # Summed in float32 and rounded afterwards, as in training.
        summed = self.words["codes"][torch.tensor(sentence)].sum(1).to(self.words["text"].dtype)
        return torch.cat([self._embedded(before), summed, self._embedded(after)])

    def _is_word(self, word) -> bool:
        codes, numbers = self.recogniser["codes_per_word"], self.recogniser["run_length_ids"]
        size = self.recogniser["num_action_tokens"] // codes
        if codes > 1:
            return isinstance(word, list | tuple) and [token // size for token in word] == list(range(codes))
        if numbers:
            is_pair = isinstance(word, list | tuple) and len(word) == 2
            return is_pair and 0 <= word[0] < size and 1 <= word[1] <= len(numbers)
        return isinstance(word, int) and 0 <= word < size

    def _embedded(self, ids):
        """The embeddings (length, width) of text and soft prompts."""
        import torch

        text, codes = self.words["text"], self.words["codes"]
        rows = [text[token] if token < len(text) else codes[token - len(text)].to(text.dtype) for token in ids]
        return torch.stack(rows) if rows else text[:0]

    def _continued(self, prompt, start: tuple):
        """The prompt with the beginning of a class name behind it."""
        if self.words is None:
            return [*prompt, *start]
        import torch

        return torch.cat([prompt, self._embedded(start)])

    # ----------------------------------------------------------------------------------------------- requests

    def _ask_vllm(self, prompt, tokens: list[int]) -> dict[int, float]:
        """https://docs.vllm.ai/en/latest/features/prompt_embeds, and `logprob_token_ids` of the completions API, with which
        `logprobs` must be the number of ids."""
        body = {"max_tokens": 1, "temperature": 0, "logprobs": len(tokens), "logprob_token_ids": tokens}
        body["return_tokens_as_token_ids"] = True
        if self.words is None:
            body["prompt"] = prompt
        else:
            import torch

            content = io.BytesIO()
            torch.save(prompt, content)  # the format of this API; the server loads tensors and nothing else
            body["prompt_embeds"] = base64.b64encode(content.getvalue()).decode()
        given = self._post("/v1/completions", body)["choices"][0]["logprobs"]["top_logprobs"][0]
        return self._found({int(name.removeprefix("token_id:")): value for name, value in given.items()}, tokens)

    def _ask_sglang(self, prompt, tokens: list[int]) -> dict[int, float]:
        """https://docs.sglang.ai/basic_usage/sampling_params.html: `input_embeds` and `token_ids_logprob` of `/generate`."""
        body = {"sampling_params": {"max_new_tokens": 1, "temperature": 0}, "return_logprob": True}
        body["token_ids_logprob"] = tokens
        body |= {"input_ids": prompt} if self.words is None else {"input_embeds": prompt.float().tolist()}
        given = self._post("/generate", body)["meta_info"]["output_token_ids_logprobs"][0]
        return self._found({token: value for value, token, *_ in given}, tokens)

    def _found(self, given: dict[int, float], tokens: list[int]) -> dict[int, float]:
        if missing := [token for token in tokens if token not in given]:
            raise RuntimeError(
                f"{self.url} did not return the log-probabilities of the tokens {missing[:5]}: expected those of all tokens "
                "that were asked for (`logprob_token_ids` of vLLM, `token_ids_logprob` of SGLang). Update the engine."
            )
        return {token: given[token] for token in tokens}

    def _post(self, path: str, body: dict) -> dict:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            reason = error.read(1000).decode("utf-8", "replace")
            raise RuntimeError(f"{self.url}{path} refused a request ({error.code}): {reason}") from error
        except OSError as error:  # no connection, one that ended, or none of the answer in time
            raise RuntimeError(
                f"{self.url}{path} did not answer ({getattr(error, 'reason', error)}): expected an answer within {TIMEOUT} "
                "seconds. Check the address, and whether the server runs and has loaded the model."
            ) from error


def _log_sum(values: list[float]) -> float:
    """log Σ exp(value)."""
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of the server, such as http://127.0.0.1:8000")
    parser.add_argument("engine", choices=["vllm", "sglang"])
    parser.add_argument("sentence", help="action sentence, as JSON")
    given = parser.parse_args()
    classes = EngineClient(given.url, given.engine).probabilities(json.loads(given.sentence))
    for name, probability in sorted(classes.items(), key=lambda item: -item[1])[:5]:
        print(f"{probability:.1%}  {name}")


if __name__ == "__main__":
    main()
