"""llama.cpp's own converter on a model whose tokenizer it has never seen: byte-level BPE, taken for GPT-2's.

    python gguf_file.py LLAMA_CPP MODEL FILE

Runs with the interpreter of the peers' own environment, so it imports nothing of this project.
"""

import importlib
import runpy
import sys


def main() -> None:
    source, model, file = sys.argv[1:]
    sys.path[:0] = [source, f"{source}/gguf-py"]
    base = importlib.import_module("conversion.base")
    base.TextModel.get_vocab_base_pre = lambda *_: "gpt-2"
    sys.argv = ["convert", model, "--outtype", "f32", "--outfile", file]
    runpy.run_path(f"{source}/convert_hf_to_gguf.py", run_name="__main__")


if __name__ == "__main__":
    main()
