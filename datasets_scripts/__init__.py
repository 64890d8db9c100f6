"""Data sets of human actions: builders and protocols, simulated recordings, pictures of skeletons, text about bodies.

This module imports nothing, so that a program loads only what it uses.

    Loading data
        load.py                  load_action_dataset: any protocol, from a folder of raw files
        ntu.py, utd_mhad.py, smarthome.py, uav_human.py, nw_ucla.py, sbu.py, folder_builder.py     builders for skeletons
        videos.py                builders for videos
        building.py              the base class of all builders
        protocols.py, names.py   splits, facts and names of the data sets; unseen_classes.py: classes that are only tested
        doubts.py                what to check about a data set although its files can be read
        timelines.py             tables of the actions in long videos

    Commands (python -m action_llm_datasets.…)
        folder.py                metadata.csv and skeleton.json for your own recordings
        prepare.py               raw files to Parquet; with data_set_card.py and preparation_report.py
        render.py                recordings of skeletons to videos
        pages.py                 the pages of the data sets in model_cards/datasets
        simulation/              simulate and simulate_long: people, motions, sensors; and body_text, text about bodies

    Shared by commands
        commands.py, endings.py, progress.py     the command line, exit messages, progress
        folder_lock.py, folder_record.py         one writer and one set of settings per output folder
        worker_processes.py, atomic_files.py     parallel work; files that are written whole or not at all
        rendering.py, fonts.py                   frames, videos, contact sheets, and text in pictures
"""
