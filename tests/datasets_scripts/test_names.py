"""Unknown names and options fail at once, with a suggestion."""

import pytest
from fresh_python import python

from action_llm_datasets.names import check_protocol

COMMANDS = {
    "prepare ntu60-xsbu --source x": "there is no protocol 'ntu60-xsbu'; did you mean ntu60-xsub?",
    "prepare ntu60 --protocol xveiw --source x": "there is no protocol 'ntu60-xveiw'; did you mean ntu60-xview?",
    "prepare ntu60 --protocl xview --source x": "there is no option --protocl; did you mean --protocol?",
    "prepare NTU60-XSub --source x": "there is no protocol 'NTU60-XSub'; did you mean ntu60-xsub?",
    "prepare kinetics --source x": "protocols are ntu60-xsub, ",
    "prepare ntu60-xsub --sorce=x": "there is no option --sorce; did you mean --source?",
    "render smarthome-sc --source x --output y": "no protocol 'smarthome-sc' of skeletons; did you mean smarthome-cs?",
    "folder x --patern y": "there is no option --patern; did you mean --pattern?",
    "simulation.simulate --actoins 3": "there is no option --actoins; did you mean --actions?",
    "simulation.simulate_long --outptu x": "there is no option --outptu; did you mean --output?",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_nearest_name_is_suggested(command, tmp_path):
    module, *arguments = command.split()
    code = (
        f"import runpy, sys; sys.argv = ['x', *{arguments!r}]\n"
        f"try: runpy.run_module('action_llm_datasets.{module}', run_name='__main__')\n"
        "finally: print([name for name in ('datasets', 'transformers') if name in sys.modules])"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 2 and COMMANDS[command] in done.stderr and "Traceback" not in done.stderr
    assert done.stdout.strip() == "[]"  # before anything heavy is imported


def test_abbreviations_and_values_are_still_accepted(tmp_path):
    done = python("-m", "action_llm_datasets.folder", tmp_path, "--patt", "--", cwd=tmp_path)
    assert "there is no option" not in done.stderr
    done = python("-m", "action_llm_datasets.folder", tmp_path / "none", "--patt", "(?P<label>.*)", cwd=tmp_path)
    assert "is not a folder" in done.stderr


def test_a_command_calls_itself_as_it_was_started(tmp_path):
    script = tmp_path / "action-llm-folder"
    script.write_text("from action_llm_datasets.folder import main\n\nmain()\n")
    assert python(script, "--help").stdout.startswith("usage: action-llm-folder [-h]")
    assert python("-m", "action_llm_datasets.folder").stderr.startswith(
        "usage: python -m action_llm_datasets.folder [-h]"
    )


def test_the_protocols_of_a_data_set_are_listed():
    """The nearest of many is a guess, which is taken for the data set."""
    folds = "sbu-fold-0, sbu-fold-1, sbu-fold-2, sbu-fold-3, sbu-fold-4"
    with pytest.raises(ValueError, match=f"no protocol 'sbu'; the protocols of sbu are {folds}"):
        check_protocol("sbu")
    with pytest.raises(
        ValueError, match=r"the protocols of NW-UCLA are nw-ucla-xview, nw-ucla-views13-view2, .*xsub-10"
    ):
        check_protocol("NW-UCLA")
    with pytest.raises(ValueError, match=r"did you mean sbu-fold-0\?"):
        check_protocol("SBU-fold-0")
    with pytest.raises(ValueError, match=r"did you mean ntu60-xsub\?"):
        check_protocol("NTU60-XSub")
