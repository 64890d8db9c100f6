"""Loads a recogniser for evaluation, in the precision that it was trained in."""

from action_llm_recipes.common.stage_records import check_dataset, training_record


def load_for_sentences(path: str, identity: dict, device, dtype: str | None = None, attention: str | None = None):
    """
    Loads a recogniser and checks that it can be evaluated on given sentences.

    Args:
        path: folder or Hub repository of a recogniser.
        identity: content of identity.json of the sentences.
        device, dtype, attention: see `load_recogniser`.

    Raises:
        ValueError: if the sentences were written by another action model or are of another protocol, or a stage was trained on
            another protocol of the data set.
    """
    from action_llm_recipes.common.fingerprints import weights_fingerprint

    check_dataset(training_record(path), identity["dataset"])
    model = load_recogniser(path, device, dtype, attention)
    if weights_fingerprint(model.base_model.action_model) != identity["weights"]:
        raise ValueError(
            f"the sentences were not written by the action model of {path}: write them with it (encode_actions.py --tokenizer)."
        )
    return model


def load_recogniser(path: str, device, dtype: str | None = None, attention: str | None = None):
    """
    Loads a recogniser.

    Args:
        path: folder or Hub repository of a recogniser.
        device: to load it on.
        dtype, attention: of the language model; by default as in training.
    """
    import torch

    from action_llm import ActionLLMForClassification

    record = training_record(path)
    options = {} if attention is None else {"attn_implementation": attention}
    # An adapter is evaluated with the weights it was trained with: in 4 bit for QLoRA.
    options |= quantization(record.get("method", "none") if torch.cuda.is_available() else "none")
    model = ActionLLMForClassification.from_pretrained(
        path, dtype=dtype or record.get("dtype", "auto"), **options
    ).eval()
    return model if getattr(model, "is_quantized", False) else model.to(device)


def quantization(method: str) -> dict:
    """
    Keyword arguments of `from_pretrained` that load a language model in 4 bit for `qlora`; none for other methods.

    Raises:
        ImportError: if bitsandbytes is missing.
    """
    if method != "qlora":
        return {}
    import torch
    from transformers import BitsAndBytesConfig
    from transformers.utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise ImportError("method qlora needs bitsandbytes and a CUDA GPU: pip install -e '.[qlora]'.")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        # The projector is copied from here: it embeds visual events.
        llm_int8_skip_modules=["lm_head", "multi_modal_projector"],
    )
    return {"quantization_config": config}
