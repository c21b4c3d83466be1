"""Networks: names and files, layouts, tasks, deployment, checked outputs."""
