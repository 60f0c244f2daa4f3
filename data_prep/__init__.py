"""Math data sets to verl's parquet form, one command each: ``python -m data_prep.NAME --help``.

One small module per data set (``aime24``, ``aime25``, ``aime26``, ``amc23``, ``brumo25``, ``hmmt_feb25``, ``math500``,
``olympiadbench``, ``dapo_math``, ``generic``) holds what is special about it. Below them lie the shared stages:
``sources`` and ``file_formats`` read, ``columns`` finds question and answer, ``answer_kinds`` makes a checkable answer,
``text_normalization``, ``deduplication``, ``near_duplicates`` and ``decontamination`` compare questions, ``schema`` and
``prompt_templates`` shape the row, ``data_card`` describes the result, ``atomic_output`` writes it.
"""
