r"""Answers to grade, for the benchmark and the fuzz run: ordinary ones, broken ones and hostile ones, from a seed."""

from __future__ import annotations

import random

HOSTILE_FIXED = (
    "9^9^9^9",
    "9^{9^{9^{9}}}",
    "10^{10^{10}}!",
    "100000!",
    r"x^{9^{9^{9}}}-\sqrt{x}",
    r"\binom{10^{9}}{5\cdot 10^{8}}",
    r"\sum_{k=1}^{99999} k!",
    r"\prod_{k=1}^{99999}\left(1+\frac{1}{k^{k}}\right)",
    r"\int_0^1 \int_0^1 \sin(x^{y^{x}}) dx dy",
    r"\lim_{n\to\infty} \frac{n!}{n^n}",
    "__import__('os').system('touch pwned')",
    "exec(open('/etc/passwd').read())",
    "(lambda f: f(f))(lambda f: f(f))",
    "[x for x in range(10**9)]",
    r"\def\x{\x\x}\x",
    r"\input{/etc/passwd}",
    "\u202e24\u202c",
    "4\u200b2\u200f\u200e",
    "42\x00",
    "\x1b[31m42\x1b[0m",
    "\ud83d\udc7e",
    "\ud800",
    "{" * 40 + "42" + "}" * 40,
    "(" * 200 + "1" + ")" * 200,
    r"\frac{" * 60 + "1" + "}{2}" * 60,
    r"\sqrt{" * 80 + "2" + "}" * 80,
    "1" * 3_000,
    "1," * 500,
    r"\pm " * 40 + "1",
    "%s%n{}{0.__class__}",
    r"\begin{pmatrix}" + "1&" * 200 + r"1\end{pmatrix}",
)
"""Hostile answers that are the same in every run; each is the content of a box."""

SLOW = (
    r"\sum_{k=1}^{99999} k! \cdot x",
    r"\int_0^1 \int_0^1 \sin(x^{y^{x}}+\sqrt{x+y}) dx dy",
    r"\sum_{k=1}^{99999}\frac{(-1)^{k} x^{k}}{k!}",
)
"""Hostile answers that no check refuses: each runs until its time limit ends it."""

_COMMANDS = (
    r"\frac",
    r"\sqrt",
    r"\left(",
    r"\right)",
    r"\text{ or }",
    r"\pi",
    r"\infty",
    r"\cup",
    r"\cdot",
    r"\pm",
    r"\le",
    r"\in",
    r"\{",
    r"\}",
    r"\begin{pmatrix}",
    r"\end{pmatrix}",
    r"\\",
    r"\log_",
    r"\sin",
    r"\lfloor",
    r"\rfloor",
    r"\binom",
    r"\sum_{k=1}^",
    r"\int_0^1",
    r"\overline",
    r"^\circ",
    r"\%",
    r"\$",
    r"\boxed",
    r"\mathbb{R}",
    r"\text",
    r"\mathrm{e}",
)
_CHARACTERS = "0123456789abcdexyzinABCDE+-*/^_=<>()[]{}|,.;:!'\"&%$#@~ \n\t\\"


def plain_answer(rng: random.Random, depth: int = 2) -> str:
    """A typical answer: a number, a fraction, a radical, a list, a pair, a short expression."""
    kind = rng.randrange(14 if depth else 4)
    number = str(rng.randint(-99, 9_999))
    if kind <= 3:
        return (number, f"{number}.{rng.randint(0, 99)}", f"{rng.randint(1, 999)}/{rng.randint(1, 99)}", number)[kind]
    if kind == 4:
        return rf"\frac{{{rng.randint(-99, 99)}}}{{{rng.randint(1, 99)}}}"
    if kind == 5:
        return rf"{rng.randint(2, 99)}\sqrt{{{rng.randint(2, 99)}}}"
    if kind == 6:
        return rf"\frac{{{rng.randint(1, 9)}\pi}}{{{rng.randint(2, 9)}}}"
    if kind == 7:
        return ", ".join(plain_answer(rng, 0) for _ in range(rng.randint(2, 4)))
    if kind == 8:
        left, right = rng.choice(("()", "[]", "(]", "[)"))
        return f"{left}{plain_answer(rng, 0)}, {plain_answer(rng, 0)}{right}"
    if kind == 9:
        variable = rng.choice("xnk")
        return f"{rng.randint(2, 9)}{variable}^{rng.randint(2, 5)}-{rng.randint(1, 9)}{variable}+{rng.randint(1, 9)}"
    if kind == 10:
        return f"x={plain_answer(rng, depth - 1)}"
    if kind == 11:
        return rf"{rng.randint(1, 9)}+{rng.randint(1, 9)}i"
    if kind == 12:
        return rf"{number}{rng.choice((chr(92) + '%', '^' + chr(92) + 'circ', chr(92) + 'text{ cm}', ' dollars'))}"
    return rf"2^{{{rng.choice('nkm')}}}-{plain_answer(rng, 0)}"


def respelled(rng: random.Random, answer: str) -> str:
    """The same answer as another model would write it."""
    answer = answer.replace(r"\frac", rng.choice((r"\frac", r"\dfrac", r"\tfrac")))
    if rng.random() < 0.5:
        answer = answer.replace("(", r"\left( ").replace(")", r" \right)")
    if rng.random() < 0.3:
        answer = answer.replace("+", " + ").replace("-", " - ")
    return f" {answer} " if rng.random() < 0.5 else answer


def broken_answer(rng: random.Random) -> str:
    """A plain answer with characters dropped, doubled, swapped or inserted; or LaTeX in random order."""
    if rng.random() < 0.4:
        return "".join(
            rng.choice(_COMMANDS) if rng.random() < 0.4 else rng.choice(_CHARACTERS) for _ in range(rng.randint(1, 30))
        )
    text = list(plain_answer(rng))
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(len(text) + 1)
        change = rng.randrange(3)
        if change == 0 and text:
            text.pop(min(position, len(text) - 1))
        elif change == 1:
            text.insert(position, rng.choice(_CHARACTERS))
        else:
            text.insert(position, rng.choice(_COMMANDS))
    return "".join(text)


def hostile_answer(rng: random.Random) -> str:
    """An answer that tries to hang, crash or fool a grader."""
    kind = rng.randrange(8)
    if kind <= 3:
        return rng.choice(HOSTILE_FIXED)
    if kind == 4:
        return "^".join(str(rng.randint(2, 99)) for _ in range(rng.randint(2, 6)))
    if kind == 5:
        opener, closer = rng.choice((("{", "}"), ("(", ")"), (r"\sqrt{", "}"), (r"\frac{1}{", "}"), ("[", "]")))
        depth = rng.randint(5, 400)
        return opener * depth + str(rng.randint(1, 9)) + closer * rng.choice((depth, depth - 1))
    if kind == 6:
        return "".join(chr(rng.choice((rng.randrange(32), rng.randrange(0x2000, 0x2070), rng.randrange(0xD800, 0xE000),
                                       rng.randrange(32, 127), rng.randrange(0x10FFFF))))
                       for _ in range(rng.randint(1, 60)))  # fmt: skip
    return rng.choice(("9", "x", r"\frac", "{", "\\", "\u202e", "1,", "a b ")) * rng.choice((10, 1_000, 100_000))


def response(rng: random.Random, answer: str) -> str:
    """A response that ends in the answer; some are cut off, have no box, or are a megabyte long."""
    kind = rng.randrange(40)
    if kind == 0:
        return f"Some work.\nAnswer: {answer}"
    if kind == 1:
        return rf"First \boxed{{7}}, then \boxed{{{answer}"
    if kind == 2:
        return "no conclusion: " + answer
    if kind == 3 and rng.random() < 0.1:
        return rng.choice(("step ", "\\boxed{", "{", "}", "Answer: ")) * 150_000 + rf"\boxed{{{answer}}}"
    return rf"Let us see. Therefore the answer is $\boxed{{{answer}}}$."
