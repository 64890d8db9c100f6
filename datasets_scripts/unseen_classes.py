"""The classes that a protocol tests and does not train on, and their actions in the text for small language models."""

from .protocols import NTU_PROTOCOLS, read_facts


def protocols_with_unseen_classes() -> list[str]:
    """Names of the protocols whose test classes are in no training recording."""
    ntu = (name for name, protocol in NTU_PROTOCOLS.items() if protocol.has_unseen_classes)
    return [*ntu, *read_facts("utd_mhad")["unseen"]]


def unseen_classes(protocol: str) -> dict[str, str]:
    """
    The unseen classes of a protocol, in label order.

    Args:
        protocol: name of a protocol of skeletons, such as "ntu120-unseen-0" or "utd-mhad-unseen-0".

    Returns:
        Class name → name of its action in `simulation/body_knowledge.json`. The two differ for UTD-MHAD, where the action has
        the name of the class's description ("right hand wave" for "wave").

    Raises:
        ValueError: if there is no such protocol, or it has no unseen classes.
    """
    utd_mhad = read_facts("utd_mhad")
    if protocol in utd_mhad["unseen"]:
        classes = [utd_mhad["classes"][action - 1] for action in utd_mhad["unseen"][protocol]["actions"]]
        return {entry["name"]: entry["description"] for entry in classes}
    if protocol not in protocols_with_unseen_classes():
        names = ", ".join(protocols_with_unseen_classes())
        raise ValueError(f"there is no protocol {protocol!r} with unseen classes: choose from {names}.")
    return {name: name for name in NTU_PROTOCOLS[protocol].class_names("test")}
