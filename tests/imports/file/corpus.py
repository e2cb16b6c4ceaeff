"""Files as people send them, each with what is true of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class File:
    """`header` is None where the file has none; `other` are the dialect's members that are not usual."""

    name: str
    content: bytes
    delimiter: str
    header: list[str] | None
    other: dict[str, Any] = field(default_factory=dict)
    # Members that cannot be told from the file: Waybill must say so.
    unsure: tuple[str, ...] = ()


def file(
    name: str, text: str, delimiter: str, header: list[str] | None, *, encoding: str = "utf-8", **other: Any
) -> File:
    unsure = other.pop("unsure", ())
    known = {"encoding": encoding.removesuffix("-sig").replace("-le-bom", "")} | other
    return File(name, text.encode(encoding), delimiter, header, known, unsure)


NAMES = ["Müller", "Ørsted", "Nuñez", "Łukasz", "Zoë", "Smith", "O'Brien", "García", "Tanaka", "de Vries"]


def _invoices(mark: str, comma: str, day: str) -> str:
    lines = [mark.join(["number", "customer", "amount", "due"])]
    for n in range(1, 30):
        amount = f"{n * 173.25:.2f}".replace(".", comma)
        lines.append(
            mark.join([f"R-{1000 + n}", NAMES[n % 10], amount, day.format(d=n % 28 + 1, m=n % 12 + 1)])
        )
    return "\r\n".join(lines) + "\r\n"


FILES = [
    file(
        "plain", "id,name,email\n1,Ann,ann@example.org\n2,Bob,bob@example.org\n", ",", ["id", "name", "email"]
    ),
    file("no final line end", "id,name\n1,Ann\n2,Bob", ",", ["id", "name"]),
    file(
        "European",
        _invoices(";", ",", "{d:02}.{m:02}.2026"),
        ";",
        ["number", "customer", "amount", "due"],
        decimal=",",
        dates="dmy",
    ),
    file(
        "European in Windows-1252",
        _invoices(";", ",", "{d:02}.{m:02}.2026").replace("Łukasz", "Jürgen"),
        ";",
        ["number", "customer", "amount", "due"],
        encoding="cp1252",
        decimal=",",
        dates="dmy",
        unsure=("encoding",),
    ),
    file(
        "American dates",
        _invoices(",", ".", "{m}/{d}/2026"),
        ",",
        ["number", "customer", "amount", "due"],
        dates="mdy",
    ),
    file(
        "British dates",
        _invoices(",", ".", "{d}/{m}/2026"),
        ",",
        ["number", "customer", "amount", "due"],
        dates="dmy",
    ),
    file(
        "dates that may be either",
        "name,born\nAnn,01/02/1990\nBob,03/04/1985\nCid,05/06/1971\n",
        ",",
        ["name", "born"],
        dates="mdy",
        unsure=("dates",),
    ),
    file(
        "numbers that may be either",
        "name\tamount\nAnn\t1,234\nBob\t2,500\n",
        "\t",
        ["name", "amount"],
        unsure=("decimal",),
    ),
    file("tabs", _invoices("\t", ".", "2026-{m:02}-{d:02}"), "\t", ["number", "customer", "amount", "due"]),
    file("pipes", _invoices("|", ".", "2026-{m:02}-{d:02}"), "|", ["number", "customer", "amount", "due"]),
    file("carets", _invoices("^", ".", "2026-{m:02}-{d:02}"), "^", ["number", "customer", "amount", "due"]),
    file("tildes", _invoices("~", ".", "2026-{m:02}-{d:02}"), "~", ["number", "customer", "amount", "due"]),
    file(
        "unit separators",
        _invoices("\x1f", ".", "2026-{m:02}-{d:02}"),
        "\x1f",
        ["number", "customer", "amount", "due"],
    ),
    file("no header", "1,Ann,2026-01-02\n2,Bob,2026-01-03\n3,Cid,2026-02-13\n", ",", None),
    file("no header, all text", "Ann,Paris,open\nBob,Rome,open\nCid,Paris,done\nAnn,Rome,open\n", ",", None),
    file(
        "header, all text",
        "name,city,state\nAnn,Paris,open\nBob,Rome,open\nCid,Paris,done\n",
        ",",
        ["name", "city", "state"],
    ),
    file("only a header", "id,name,email\n", ",", ["id", "name", "email"]),
    file("one column", "email\nann@example.org\nbob@example.org\n", ",", ["email"]),
    file("one column of numbers", "1001\n1002\n1003\n", ",", None),
    file(
        "one column of sentences", "remark\nYes, of course\nNo\nWell, well, well\nPerhaps\n", ";", ["remark"]
    ),
    file(
        "quoted line ends",
        'id,note,state\n1,"two\nlines",open\n2,"three\n\nof, them",done\n3,plain,open\n',
        ",",
        ["id", "note", "state"],
    ),
    file(
        "quoted delimiters",
        'name;address;city\n"Smith; John";"12, High Street";London\n"Doe; Jane";"1, Rue A";Paris\n',
        ";",
        ["name", "address", "city"],
    ),
    file(
        "everything quoted",
        '"id","name","amount"\n"1","Ann","10.50"\n"2","Bob","20.25"\n"3","Cid","1,000.75"\n',
        ",",
        ["id", "name", "amount"],
    ),
    file(
        "single quotes",
        "id,name,city\n1,'Ann, A.',Rome\n2,'Bob, B.',Oslo\n3,'Cid',Bern\n",
        ",",
        ["id", "name", "city"],
        quote="'",
    ),
    file(
        "escaped by a backslash",
        'id,note,state\n1,"says \\"hi\\", twice",open\n2,"a \\"b\\"",done\n3,"c, d",done\n',
        ",",
        ["id", "note", "state"],
        escape="\\",
    ),
    file(
        "inches",
        'size\tname\tprice\n5"\tpipe\t3.20\n12"\tplank\t8.10\n3 1/2"\tnail\t0.05\n',
        "\t",
        ["size", "name", "price"],
    ),
    file(
        "stray quotes at the start",
        'id\ttitle\tyear\n1\t"Heroes" are many\t1999\n2\t"What now\t2001\n3\tNothing\t2004\n'
        '4\tMore "of" it\t2005\n',
        "\t",
        ["id", "title", "year"],
        quote=None,
    ),
    file(
        "title before",
        "Invoices of 2026\nMade on 2026-02-01\n\nnumber,customer,amount\n"
        + "".join(f"R-{n},Ann,{n}.50\n" for n in range(20)),
        ",",
        ["number", "customer", "amount"],
        skip=3,
        unsure=("skip",),
    ),
    file(
        "title padded by a spreadsheet",
        "Members;;;\n;;;\nid;name;city;since\n"
        + "".join(f"{n};Ann;Rome;2026-01-{n + 1:02}\n" for n in range(20)),
        ";",
        ["id", "name", "city", "since"],
        skip=2,
        unsure=("skip",),
    ),
    file(
        "Excel's sep= line",
        "sep=;\nid;name;city\n1;Ann;Rome\n2;Bob;Oslo\n",
        ";",
        ["id", "name", "city"],
        skip=1,
        unsure=("skip",),
    ),
    file(
        "byte order mark",
        "id,name\n1,Zoë\n2,Bob\n",
        ",",
        ["id", "name"],
        encoding="utf-8-sig",
        apostrophes=True,
    ),
    file("UTF-16 with its mark", "id\tname\n1\tZoë\n2\tBob\n", "\t", ["id", "name"], encoding="utf-16"),
    file("UTF-16 without", "id,name\n1,Zoë\n2,Bob\n", ",", ["id", "name"], encoding="utf-16-le"),
    file(
        "Cyrillic",
        "имя;город;год\nИван Петров;Москва;1990\nМария Иванова;Казань;1985\nПётр Сидоров;Тверь;1977\n",
        ";",
        ["имя", "город", "год"],
        encoding="cp1251",
        unsure=("encoding",),
    ),
    file(
        "Japanese",
        "名前,都市,年\n田中太郎,東京,1990\n鈴木花子,大阪,1985\n佐藤次郎,名古屋,1977\n",
        ",",
        ["名前", "都市", "年"],
        encoding="shift_jis",
        unsure=("encoding",),
    ),
    file(
        "Chinese in UTF-8", "姓名,城市,年份\n王伟,北京,1990\n李娜,上海,1985\n", ",", ["姓名", "城市", "年份"]
    ),
    file(
        "decimal commas between commas",
        'name,amount,share\nAnn,"1.234,50","0,5"\nBob,"22,75","0,25"\nCid,"3,10","0,1"\n',
        ",",
        ["name", "amount", "share"],
        decimal=",",
    ),
    file(
        "times",
        "from,to,room\n08:30,09:45,A 1\n10:00,11:30,B 2\n12:15,13:00,C 3\n",
        ",",
        ["from", "to", "room"],
    ),
    file(
        "lists within cells",
        "id;tags;state\n1;red,green,blue;open\n2;red,blue,black;done\n3;green,black,white;open\n",
        ";",
        ["id", "tags", "state"],
    ),
    file(
        "JSON within cells",
        'id,data\n1,"{""a"": 1, ""b"": [1, 2]}"\n2,"{""a"": 2, ""b"": []}"\n3,"{""a"": 3, ""b"": [7]}"\n',
        ",",
        ["id", "data"],
    ),
    file(
        "ragged",
        "id,name,city\n1,Ann,Rome\n2,Bob\n3,Cid,Oslo,extra\n4,Dan,Bern\n5,Eve,Bonn\n",
        ",",
        ["id", "name", "city"],
    ),
    file("empty cells", "id,name,city\n,,\n1,,Rome\n2,Bob,\n,,Oslo\n", ",", ["id", "name", "city"]),
    file("old Mac line ends", "id,name\r1,Ann\r2,Bob\r", ",", ["id", "name"]),
    file("mixed line ends", "id,name\r\n1,Ann\n2,Bob\r3,Cid\r\n", ",", ["id", "name"]),
    file("repeated names", "id,name,name\n1,Ann,Lee\n2,Bob,Ray\n", ",", ["id", "name", "name"]),
    file(
        "nulls of PostgreSQL",
        "id\tname\tage\n1\tAnn\t\\N\n2\t\\N\t41\n3\tCid\t37\n",
        "\t",
        ["id", "name", "age"],
        nulls=("\\N",),
    ),
    file("a person called Null", "id,name\n1,Null\n2,NULL\n3,Smith\n", ",", ["id", "name"]),
    file("no numbers known", "id,age\n1,NULL\n2,41\n3,37\n", ",", ["id", "age"], nulls=("NULL",)),
    file(
        "years as names",
        "region,2024,2025\nNorth,12.5,13.1\nSouth,8.2,9.9\n",
        ",",
        ["region", "2024", "2025"],
    ),
    file(
        "blanks after delimiters",
        "id, name, city\n1, Ann, Rome\n2, Bob, Oslo\n3, Cid, Bern\n",
        ",",
        ["id", "name", "city"],
    ),
    file("a long cell", "id,note\n1," + "x" * 200_000 + "\n2,short\n3,short\n", ",", ["id", "note"]),
]
