"""A server on the loopback interface that answers as vLLM and SGLang document, computed by a model of transformers.

It has `/v1/completions` of vLLM with `prompt_embeds` and `logprob_token_ids`, and `/generate` of SGLang with `input_embeds` and
`token_ids_logprob`, and refuses requests that these refuse. Rules and forms are those of vLLM's `CompletionRequest`,
`SamplingParams`, `safe_load_prompt_embeds` and `_create_completion_logprobs`, and of SGLang's `GenerateReqInput` and
`docs/basic_usage/sampling_params.md`. The engines themselves were not run.
"""

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from transformers import AutoModelForCausalLM

# `MAX_LOGPROB_TOKEN_IDS` of vLLM.
MAX_TOKENS = 128


class ServingEngine:
    """Serves a plain model until the block ends.

    Attributes:
        url: address of the server.
        requests: the bodies of all requests.
        knows_tokens: whether log-probabilities of given tokens are returned; older engines ignore the request for them.
    """

    def __init__(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.requests: list[dict] = []
        self.knows_tokens = True

    def __enter__(self):
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                engine.requests.append(body)
                answers = {"/v1/completions": engine.complete, "/generate": engine.generate}
                try:
                    status, content = 200, answers[self.path](body)
                except (AssertionError, KeyError, ValueError) as error:
                    status, content = 400, {"error": {"message": str(error), "code": 400}}
                content = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @torch.no_grad()
    def log_probabilities(self, ids: list[int] | None, embeddings: torch.Tensor | None) -> torch.Tensor:
        """Those of the next token (vocabulary,), behind a prompt."""
        if embeddings is None:
            if max(ids) >= self.model.config.vocab_size:
                raise ValueError(f"Token id {max(ids)} is out of vocabulary")
            logits = self.model(input_ids=torch.tensor([ids])).logits
        else:
            width = self.model.config.hidden_size
            if embeddings.dim() != 2 or embeddings.shape[1] != width:
                raise ValueError(f"expected embeddings (length, {width}), got {tuple(embeddings.shape)}")
            logits = self.model(inputs_embeds=embeddings[None]).logits
        return logits[0, -1].float().log_softmax(-1)

    def complete(self, body: dict) -> dict:
        """vLLM, completions: the sampled token comes first in `top_logprobs`, then those of `logprob_token_ids`."""
        if ("prompt" in body) == ("prompt_embeds" in body):
            raise ValueError("Either prompt or prompt_embeds must be provided")
        embeddings = None
        if "prompt_embeds" in body:
            content = base64.b64decode(body["prompt_embeds"], validate=True)
            embeddings = torch.load(io.BytesIO(content), weights_only=True)
            if embeddings.dtype != self.model.dtype:
                raise ValueError(f"prompt_embeds are {embeddings.dtype}, the model is {self.model.dtype}")
        tokens, count = body["logprob_token_ids"], body["logprobs"]
        if len(tokens) > MAX_TOKENS or count != len(tokens):
            raise ValueError(f"logprobs is {count}, logprob_token_ids has {len(tokens)} ids")
        assert (body["max_tokens"], body["temperature"]) == (1, 0) and body["return_tokens_as_token_ids"]
        log_probs = self.log_probabilities(body.get("prompt"), embeddings)
        sampled = int(log_probs.argmax())
        listed = dict.fromkeys([sampled, *tokens] if self.knows_tokens else log_probs.topk(count).indices.tolist())
        top = {f"token_id:{token}": max(float(log_probs[token]), -9999.0) for token in list(listed)[: count + 1]}
        return {"choices": [{"index": 0, "logprobs": {"tokens": [f"token_id:{sampled}"], "top_logprobs": [top]}}]}

    def generate(self, body: dict) -> dict:
        """SGLang: `output_token_ids_logprobs` has, for each generated token, triples of log-probability, id and text."""
        if ("input_ids" in body) == ("input_embeds" in body):
            raise ValueError("Either input_ids or input_embeds should be provided.")
        assert body["return_logprob"] and body["sampling_params"] == {"max_new_tokens": 1, "temperature": 0}
        embeddings = torch.tensor(body["input_embeds"]).to(self.model.dtype) if "input_embeds" in body else None
        log_probs = self.log_probabilities(body.get("input_ids"), embeddings)
        listed = [[float(log_probs[token]), token, None] for token in body["token_ids_logprob"]]
        return {"meta_info": {"output_token_ids_logprobs": [listed if self.knows_tokens else []]}}
