"""What the commands share on the terminal: verbs, their options, confirmation, output, errors to exit statuses.

Must not know any verb.
"""
