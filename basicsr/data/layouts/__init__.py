"""Public restoration data sets: where their pairs are in the folders as downloaded, and how prepared folders are made.

:mod:`.sets` is the table of the sets; :mod:`.writer` makes ``<target>/<part>/{lq,gt}`` from what it finds.
"""
