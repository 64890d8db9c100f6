"""Loading a recogniser for evaluation, as it was trained."""

from action_llm_recipes.common.stage_records import check_dataset, training_record


def load_recogniser(path: str, identity: dict, device, dtype: str | None = None, attention: str | None = None):
    """The recogniser that was trained on certain sentences, as it was trained.

    Args:
        path: folder or repository of an ActionLLM.
        identity: of the sentences that it is to read.
        device: where it goes.
        dtype, attention: other than those of its training.

    Raises:
        ValueError: the sentences are of another action model or protocol, or a stage of it was trained on another protocol of
            the data set.
    """
    import torch

    from action_llm import ActionLLMForClassification
    from action_llm_recipes.common.fingerprints import weights_fingerprint

    record = training_record(path)
    check_dataset(record, identity["dataset"])
    options = {} if attention is None else {"attn_implementation": attention}
    # An adapter is evaluated on the language model that it was trained on: in 4 bit, if it was in 4 bit.
    options |= quantization(record.get("method", "none") if torch.cuda.is_available() else "none")
    model = ActionLLMForClassification.from_pretrained(
        path, dtype=dtype or record.get("dtype", "auto"), **options
    ).eval()
    if weights_fingerprint(model.base_model.action_model) != identity["weights"]:
        raise ValueError(f"the sentences were not written by the action model of {path}.")
    return model if getattr(model, "is_quantized", False) else model.to(device)


def quantization(method: str) -> dict:
    """Keyword arguments that load a language model in 4 bit for QLoRA; none for the other methods."""
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
        # The projector is copied: it makes the words of visual events.
        llm_int8_skip_modules=["lm_head", "multi_modal_projector"],
    )
    return {"quantization_config": config}
