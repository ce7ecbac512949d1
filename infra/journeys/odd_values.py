"""Values that document formats must quote or escape, by the last part of their names."""

ODD_VALUES = {
    "plain": "hunter2",
    "empty": "",
    "spaces": "  two  ",
    "quotes": 'she said "no"',
    "apostrophe": "it's",
    "lines": "one\ntwo\n\nthree\n",
    "unicode": "pässword 鍵 🔑",
    "yes": "yes",
    "number": "012",
    "date": "2001-01-01",
    "comma": "a,b;c",
    "hash": "a # b: c",
    "equals": "a=b",
    "dollar": "$HOME `id` \\n",
    "brackets": "[1, {2}]",
    "Dotted.name": "d",
    "with space": "s",
    "ключ": "k",
}
