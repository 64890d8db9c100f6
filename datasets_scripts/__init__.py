"""Data sets of human actions: builders and protocols, simulated recordings, pictures of skeletons, text about bodies.

Nothing is imported here, so that a program pays only for what it uses:

    load.py           load_action_dataset: any protocol from a folder of raw files
    ntu.py, utd_mhad.py, smarthome.py, uav_human.py     the builders of skeletons; of videos: videos.py
    folder_builder.py recordings of one's own; their tables: folder.py, python -m action_llm_datasets.folder
    prepare.py        python -m action_llm_datasets.prepare: raw recordings to Parquet with a page
    render.py         python -m action_llm_datasets.render: recordings of skeletons to videos
    building.py, protocols.py                           what they share, and the splits of NTU RGB+D
    doubts.py         what is doubtful about a data set although its files can be read
    names.py, progress.py                               names of protocols and files; what a command says while it runs
    endings.py, folder_lock.py, worker_processes.py     how a command that is stopped ends; one writer for a folder; workers
    atomic_files.py                                     files that are written whole or not at all
    timelines.py      tables of what happens when
    simulation/       python -m action_llm_datasets.simulation.simulate and .simulate_long: people, motions,
                      sensors; body_text.py, sentences about bodies and actions
    rendering.py      frames, videos and contact sheets
"""
