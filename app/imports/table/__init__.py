"""An import's table: checked rows get into it, and out of it again. Knows no file.

- Who is spoken to: a `connection`, the table as its `catalogue` knows it, the `plan` for an importer's rows.
- Before a write: `ready` looks up references and fits values to the columns (`fit`).
- The write: a `merge`, which `encode` sends, and which the `journal` accounts for in the same transaction.
- Around it: `sift` finds rows that the table refuses, `foresight` merges without writing, `undoing` takes
  back.
- `inspection` tells an author whether an importer fits its table.
"""
