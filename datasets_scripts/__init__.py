"""Data sets of human actions: builders and protocols, simulated recordings, pictures of skeletons, text about bodies.

Nothing is imported here, so that a program pays only for what it uses:

    load.py           load_action_dataset: any protocol from a folder of raw files
    ntu.py, utd_mhad.py, building.py, protocols.py      the builders and the facts they go by
    simulate.py       python -m action_llm_datasets.simulate: people, motions, sensors in simulated_*.py
    rendering.py      frames and contact sheets
    body_text.py      sentences about bodies and actions
"""
