"""The glue between DVC and the calendar: workspaces, what a month's run does in one, what is published.

Nothing here knows Airflow: a run is the command ``lurm release ...``, with all it needs in its arguments
and environment, so that a process, a container and a pod run the same.
"""
