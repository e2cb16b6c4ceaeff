"""An import's file: any upload becomes plain text, the text records, their cells typed rows. Knows no target.

- Its bytes: `plain`, over `packed` and `workbook`.
- How it is read: a `dialect`, which `detect` finds and people mend (`correction`).
- Its rows: `cut` and `records` find them, `parse` takes them apart, `check` says which are good.
- The way back: `rejects` writes the refused ones as a file that can be sent in again.
"""
