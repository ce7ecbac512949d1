"""Shows what a role allows."""


def role_table(verb: str, allowed: dict[str, bool]) -> str:
    """Returns the table of one function's role as text, with one action per line."""
    width = max(map(len, allowed))
    lines = [
        f"  {what:{width}} {'ALLOWED' if is_allowed else 'denied'}"
        for what, is_allowed in allowed.items()
    ]
    return "\n".join([f"The role of {verb}:", *lines])
