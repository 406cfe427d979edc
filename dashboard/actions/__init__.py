"""What the pages do beyond reading: each action is a `nas` command in a process of its own."""

TOKEN = "NAS_DASHBOARD_TOKEN"  # the environment variable with what lets somebody act from elsewhere
