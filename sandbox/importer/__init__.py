"""Importers: from the workflow language of another system into Casemate's, with a note for everything that was read.

Reading order: `notes` (what is said of a key), `source` (frontmatter and prompt of a file), `draft` (the workflow as it
grows), then a file a topic (`top`, `triggers`, `network`, `tools`, `safe_outputs` with `kinds`, `limits` and
`patterns`, `prompt`), and `gh_aw`, the entry. Everything here is pure: files are read by a function that the caller
gives.
"""
