"""How long a test waits for what has to come."""

# A wait ends with what it waits for, so this is spent by what never comes alone. A process that
# begins beside others on a machine whose disk has not been read yet may well take a minute.
WAIT_S = 300.0
