"""The guide: its chapters, and the program that makes a site of them; see `index.md` here.

The chapters are Markdown, and `tests/project/test_readme.py` runs each snippet. `index.md` lists
them in order. `pages` says which pages the site has, and where each stands:

    pages -> tour -> rendering      Markdown, and the tour cut into its steps
    pages -> runs, bugs             recorded: the steps of the tour; programs with bugs
    pages -> reference -> names     a page for each public name
    pages -> commands, mistakes, messages, other_names      pages that are made of the sources
"""
