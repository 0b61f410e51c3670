"""The sections of the report page."""

from collections.abc import Mapping

from retrieval.codes import Codes
from retrieval.diagnostics import Neighbours
from retrieval.figures import Figures, class_label
from retrieval.overlap import Overlap
from retrieval.page import Section, panels_html, paragraph, photograph_html, table_html
from retrieval.scored import Scored
from retrieval.worst_classes import FIRST, QUERIES


def page_facts(scored: Mapping[str, Scored]) -> list[tuple[str, str]]:
    """What a reader must know before comparing a figure with another paper's."""
    first = next(iter(scored.values()))
    found = first.evaluation
    lengths = sorted({one.evaluation.code_length for one in scored.values()})
    protocols = dict.fromkeys(one.codes.protocol or "not stated" for one in scored.values())
    return [
        ("protocol", "; ".join(protocols)),
        ("queries", f"{found.queries:,}"),
        ("database", f"{found.database:,}"),
        ("code length", " and ".join(map(str, lengths)) + " bits"),
        ("tie rule", found.ties),
        ("nothing relevant for", f"{found.queries_without_relevant:,} queries"),
    ]


def page_sections(scored: Mapping[str, Scored], figures: Figures) -> list[Section]:
    """Warnings, tables, and the figures that `retrieval.figures.draw` has made."""
    sections = [_score_section(scored)]
    for name, one in scored.items():
        if one.overlap.any:
            sections.insert(0, _overlap_section(name, one.overlap))
    if any(one.paired for one in scored.values()):
        sections.append(_paired_section(scored))
    panels = {
        "Precision and recall": [figures.rank_curve, figures.radius_curve],
        "Within the first K": [figures.precision_at, figures.recall_at],
        "MAP by class size": [figures.class_size],
        "Distances of relevant and irrelevant pairs": list(figures.distances.values()),
    }
    sections += [Section(title, [panels_html(drawn, title)]) for title, drawn in panels.items()]
    for name, picture in figures.grids.items():
        body = [photograph_html(picture, f"Nearest database images of {name}")]
        sections.append(Section(f"Retrievals of {name}", body))
    for name, one in scored.items():
        if one.worst:
            sections.append(_worst_section(name, one, figures))
        sections.append(_diagnostics_section(name, one, figures))
    return sections


def _score_section(scored: Mapping[str, Scored]) -> Section:
    columns = [_overall(one) for one in scored.values()]
    deep = [_within(one) for one in scored.values()]
    tables = [
        table_html(
            ["metric", *scored], [[label, *(one[label] for one in side)] for label in side[0]]
        )
        for side in (columns, deep)
        if side[0]
    ]
    return Section("Scores", ['<div class="tables">', *tables, "</div>", paragraph(_SCORE_NOTE)])


def _overall(one: Scored) -> dict[str, str]:
    """Scores over the whole ranking, label → figure."""
    found = one.evaluation
    rows = {
        "MAP@ALL": _number(found.map),
        "· 95% interval": f"{one.interval[0]:.3f} to {one.interval[1]:.3f}",
        "· best order inside ties": _number(one.best_and_worst[0]),
        "· worst order inside ties": _number(one.best_and_worst[1]),
        "· mean over the classes": _number(found.map_macro),
    }
    rows |= {f"· {group}-shot classes": _number(value) for group, value in found.groups.items()}
    rows[f"Precision within radius {found.radius}"] = _number(found.precision_within_radius)
    rows["· queries that find nothing there"] = f"{found.empty_within_radius:.1%}"
    return rows


def _within(one: Scored) -> dict[str, str]:
    """Scores within the first K, label → figure."""
    found, rows = one.evaluation, {}
    for k in found.map_at_k:
        rows[f"MAP@{k}, over the relevant found"] = _number(found.map_at_k[k])
        rows[f"· over min({k}, relevant in all)"] = _number(found.map_at_k_min[k])
    for name, values in (
        ("Precision", found.precision_at),
        ("Recall", found.recall_at),
        ("nDCG", found.ndcg_at),
    ):
        rows |= {f"{name}@{k}": _number(value) for k, value in values.items()}
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


_SCORE_NOTE = (
    "Every figure is a mean over the queries; a query without a relevant image scores 0. Images at "
    "one Hamming distance are tied; the tie rule says which order inside a tie is scored "
    "('expected': the mean over all orders). Published hashing tables divide AP@K by the relevant "
    "images found within K."
)


def _overlap_section(name: str, overlap: Overlap) -> Section:
    parts = []
    if overlap.same_name_and_code:
        parts.append(f"{overlap.same_name_and_code:,} by name and code")
    if overlap.same_content:
        parts.append(f"{overlap.same_content:,} by content")
    examples = ", ".join(map(str, overlap.examples))
    text = f"{name}: {' and '.join(parts)} (queries {examples}). They find themselves first."
    return Section("Warning: queries sit in the database", [paragraph(text)], warning=True)


def _paired_section(scored: Mapping[str, Scored]) -> Section:
    base = next(iter(scored))
    rows = []
    for name, one in scored.items():
        if one.paired is not None:
            test = one.paired
            rows.append(
                [name, f"{test.difference:+.4f}", f"{test.low:+.4f} to {test.high:+.4f}",
                 f"{test.p_value:.4f}"]
            )  # fmt: skip
    header = ["codes", f"MAP@ALL minus {base}", "95% interval", "p-value"]
    note = "Randomization test on the queries' average precisions, two-sided, 10,000 sign flips."
    return Section(f"Compared with {base}", [table_html(header, rows), paragraph(note)])


def _diagnostics_section(name: str, one: Scored, figures: Figures) -> Section:
    bits, codes = one.bits, one.codes
    facts = bits.to_dict()
    pairs = ", ".join(f"{i}={j}" for i, j in bits.duplicates[:20])
    rows = [
        ["dead bits", ", ".join(map(str, bits.dead)) or "none"],
        ["duplicate bits", pairs or "none"],
        ["mean entropy of a bit", f"{facts['mean_entropy']:.3f} of 1"],
        ["mean absolute correlation", f"{facts['mean_absolute_correlation']:.3f}"],
        ["distinct database codes", f"{bits.distinct:,} of {bits.items:,}"],
        ["images whose code another class has too", f"{one.collisions:.1%}"],
    ]
    drawn = [figures.balance[name], figures.correlation[name]]
    body = [table_html(["diagnostic", "value"], rows), panels_html(drawn, "Bits")]
    if one.neighbours is not None:
        body.append(panels_html([figures.neighbours[name]], "Classes among the ten nearest"))
        body.append(_swallowed(one.neighbours, codes))
    return Section(f"Codes of {name}", body)


def _worst_section(name: str, one: Scored, figures: Figures) -> Section:
    codes, counts = one.codes, one.codes.train_class_counts
    rows = []
    for each in one.worst:
        rivals = [f"{class_label(codes, c, counts)} {share:.2f}" for c, share in each.rivals]
        label = class_label(codes, each.label, counts)
        rows.append([label, f"{each.map:.4f}", f"{each.own:.2f}", ", ".join(rivals) or "nothing"])
    note = (
        f"Own share and rivals: of the {FIRST} nearest images, or as many as the class has, of at "
        f"most {QUERIES} queries a class."
    )
    if counts is not None:
        note += " In brackets the training images."
    body = [table_html(["class", "MAP@ALL", "own share", "finds instead"], rows), paragraph(note)]
    if name in figures.worst:
        picture = "The query with the median average precision of each class, and what it finds"
        body.append(photograph_html(figures.worst[name], picture))
    return Section(f"Classes that {name} retrieves worst", body)


def _swallowed(found: Neighbours, codes: Codes) -> str:
    lost = found.swallowed()
    if not lost:
        return paragraph("No class's queries find another class more often than their own.")
    counts = codes.train_class_counts
    header = ["class", "own share", "swallowed by", "its share"]
    rows = []
    for c in lost[:20]:
        rival = int(found.rival[c])
        names = [class_label(codes, each, counts) for each in (c, rival)]
        rows.append([names[0], f"{found.own[c]:.2f}", names[1], f"{found.rival_share[c]:.2f}"])
    more = f" The worst 20 of {len(lost)} are listed." if len(lost) > 20 else ""
    note = "Classes whose queries find another class more often than their own among the ten "
    note += "nearest; in brackets the training images." if counts is not None else "nearest."
    return paragraph(note + more) + table_html(header, rows)
