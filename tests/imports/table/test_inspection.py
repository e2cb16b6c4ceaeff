"""`flask importers check` asks the tables themselves."""

from __future__ import annotations

import psycopg
import pytest

from app.importers import BrokenImporters, Column, Importer, Reference, Registry
from app.imports.table import inspection

TABLES = """
DROP SCHEMA IF EXISTS inspection CASCADE;
CREATE SCHEMA inspection;
CREATE TYPE inspection.state AS ENUM ('new', 'used');
CREATE DOMAIN inspection.grams AS integer CHECK (VALUE > 0);
CREATE TABLE inspection.machines (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE inspection.parts (
    id bigint GENERATED ALWAYS AS IDENTITY,
    number varchar(20) NOT NULL UNIQUE,
    machine_id integer NOT NULL REFERENCES inspection.machines,
    state inspection.state NOT NULL DEFAULT 'new',
    price numeric(10, 2),
    gross numeric(10, 2) GENERATED ALWAYS AS (price * 1.19) STORED,
    built_on date,
    weight inspection.grams
);
CREATE VIEW inspection.seen AS SELECT * FROM inspection.parts;
"""
GOOD = (
    Column(name="number", required=True),
    Column(name="machine_id", type="int", references=Reference("inspection.machines", "id")),
    Column(name="state"),
    Column(name="price", type="decimal"),
    Column(name="built_on", type="date"),
    Column(name="weight", type="int"),
)


@pytest.fixture(scope="module")
def url(services):
    return "postgresql://" + services.database("inspection").partition("://")[2]


@pytest.fixture
def conn(url):
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(TABLES)
        yield conn


def findings(conn, *columns: Column, table="inspection.parts", key=("number",)) -> list[str]:
    importer = Importer()
    importer.table, importer.columns, importer.natural_key = table, columns or GOOD, key
    return [finding.message for finding in inspection.findings(importer, conn)]


def test_a_table_that_fits(conn):
    assert findings(conn) == []


@pytest.mark.parametrize("table", ["inspection.nothing", "inspection.seen"])
def test_a_table_must_be_one(conn, table):
    [message] = findings(conn, table=table)
    assert table in message


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (Column(name="color"), "the table inspection.parts has no column color"),
        (
            Column(name="price", type="date"),
            "column price is numeric(10,2) in the table, which takes no date",
        ),
        (Column(name="gross", type="decimal"), "gross is a generated column: nothing can be written"),
        (
            Column(name="machine_id", references=Reference("inspection.machines", "name")),
            "column machine_id: no unique index of the table inspection.machines is over just name",
        ),
        (
            Column(name="machine_id", references=Reference("inspection.machines", "title")),
            "column machine_id: the table inspection.machines has no column title",
        ),
        (
            Column(name="machine_id", references=Reference("inspection.robots", "id")),
            "column machine_id: There is no table 'inspection.robots'",
        ),
        (
            Column(name="machine_id", type="date", references=Reference("inspection.machines", "id")),
            "column machine_id is date, but inspection.machines.id is integer",
        ),
    ],
)
def test_columns_must_be_there_and_take_the_values(conn, column, message):
    others = [other for other in GOOD if other.name != column.name]
    [found] = findings(conn, *others, column)
    assert message in found


def test_what_a_new_row_needs_must_be_written(conn):
    [found] = findings(conn, GOOD[0])
    assert "has a column machine_id that must have a value" in found


def test_the_natural_key_needs_its_unique_index(conn):
    [found] = findings(conn, key=("number", "built_on"))
    assert found == "no unique index of the table inspection.parts is over just number, built_on; create one"


def test_the_account_needs_its_rights(conn):
    conn.execute("DROP ROLE IF EXISTS fitting_reader")
    conn.execute("CREATE ROLE fitting_reader")
    try:
        conn.execute("GRANT USAGE ON SCHEMA inspection TO fitting_reader")
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA inspection TO fitting_reader")
        conn.execute("SET ROLE fitting_reader")
        found = findings(conn)
        assert "this source's account lacks the right INSERT on the table inspection.parts" in found
        assert "this source's account lacks the right UPDATE on the table inspection.parts" in found
        assert any("may not create tables in a schema waybill" in message for message in found)
        needed = "this source's account lacks the right DELETE on the table inspection.parts, which undoing"
        assert any(message.startswith(needed) for message in found)
        assert len(found) == 4
    finally:
        conn.execute("RESET ROLE")
        conn.execute("DROP OWNED BY fitting_reader")
        conn.execute("DROP ROLE fitting_reader")


@pytest.fixture
def writer(conn):
    """What GRANTs give is all that the account at work may do."""
    conn.execute("DROP ROLE IF EXISTS fitting_writer")
    conn.execute("DROP SCHEMA IF EXISTS waybill_journal CASCADE")
    conn.execute("CREATE ROLE fitting_writer; CREATE SCHEMA waybill_journal AUTHORIZATION fitting_writer")

    def asked(*grants, **options):
        conn.execute("RESET ROLE")
        for grant in grants:
            conn.execute(f"GRANT {grant} TO fitting_writer")
        conn.execute("SET ROLE fitting_writer")
        return findings(conn, **options)

    yield asked
    conn.execute("RESET ROLE")
    conn.execute("DROP OWNED BY fitting_writer CASCADE; DROP ROLE fitting_writer")


def test_every_right_around_the_table_is_asked_for(conn, writer):
    """Numbers of new rows, values looked up, and rows of other tables that refer to what an undo deletes."""
    conn.execute("""
        ALTER TABLE inspection.parts ADD COLUMN row serial, ADD UNIQUE (id);
        CREATE TABLE inspection.orders (id int, part bigint REFERENCES inspection.parts (id), note text);
    """)
    found = writer("USAGE ON SCHEMA inspection", "SELECT, INSERT, UPDATE, DELETE ON inspection.parts")
    lacks = "this source's account lacks the right"
    assert sorted(found) == [
        f"column machine_id: {lacks} SELECT on the table inspection.machines, where values are looked up",
        f"{lacks} SELECT on the table inspection.orders, which refers to inspection.parts: undoing an import "
        "needs it",
        f"{lacks} USAGE on the sequence inspection.parts_row_seq, which fills the column row",
    ]
    assert (
        writer(
            "USAGE ON SEQUENCE inspection.parts_row_seq",
            "SELECT (id) ON inspection.machines",
            "SELECT (part) ON inspection.orders",
        )
        == []
    )


def test_a_schema_that_may_not_be_looked_into(writer):
    [found] = writer()
    assert found.startswith(
        "this source's account may not look at the table inspection.parts (permission denied"
    )


def test_a_problem_has_its_file_and_line(conn, tmp_path):
    (tmp_path / "parts.toml").write_text(
        'title = "Parts"\ntable = "inspection.parts"\nmodes = ["insert"]\n\n'
        "[columns.number]\n\n[columns.machine_id]\n"
        'type = "int"\n\n[columns.price]\ntype = "date"\n'
    )
    registry = Registry.load(str(tmp_path))
    assert registry.problems == ()
    [problem] = inspection.problems(registry.get("parts"), conn)
    assert str(problem).endswith(
        "parts.toml:11: column price is numeric(10,2) in the table, which takes no date"
    )


def test_list_and_check(demo, runner):
    listed = runner.invoke(args=["importers", "list"])
    assert listed.output.splitlines()[0].split() == ["KEY", "TITLE", "ROLES", "SOURCE", "TABLE"]
    assert "members   Members   member, admin  demo    members" in listed.output
    checked = runner.invoke(args=["importers", "check"])
    assert (checked.exit_code, checked.output) == (0, "All 3 importers are in order.\n")


def test_check_tells_of_files_and_of_tables(demo, environ, tmp_path):
    from app import create_app

    (tmp_path / "bad.toml").write_text('titel = "Bad"\n')
    (tmp_path / "unfit.toml").write_text(
        'title = "Unfit"\ntable = "companies"\nnatural_key = ["plan"]\nmodes = ["update"]\n'
        "[columns.plan]\nrequired = true\n"
    )
    runner = create_app(environ | {"IMPORTERS_PATH": str(tmp_path)}).test_cli_runner()
    checked = runner.invoke(args=["importers", "check"])
    assert checked.exit_code == 1
    assert f"{tmp_path}/bad.toml:1: titel is no option of an importer" in checked.stderr
    assert f"{tmp_path}/unfit.toml:3: no unique index of the table companies" in checked.stderr
    assert checked.stderr.splitlines()[-1] == "Error: 2 problems in the importers."


def test_a_target_that_is_down_is_a_warning(demo, environ, tmp_path):
    from app import create_app

    (tmp_path / "far.toml").write_text(
        'title = "Far"\nsource = "far"\ntable = "t"\nmodes = ["insert"]\n[columns.a]\n'
    )
    far = {"IMPORTERS_PATH": str(tmp_path), "SOURCE_FAR_URL": "postgresql://127.0.0.1:1/none"}
    checked = create_app(environ | far).test_cli_runner().invoke(args=["importers", "check"])
    assert checked.exit_code == 0, checked.output
    assert "Warning: The database of the source 'far' does not answer" in checked.stderr


def test_waybill_does_not_start_with_a_broken_importer(environ, tmp_path):
    from app import create_app

    (tmp_path / "bad.toml").write_text('titel = "Bad"\n')
    production = {"ENVIRONMENT": "production", "SECRET_KEY": "x" * 40, "IMPORTERS_PATH": str(tmp_path)}
    with pytest.raises(BrokenImporters, match=r"bad\.toml:1: titel is no option"):
        create_app(environ | production)
