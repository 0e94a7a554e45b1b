"""Compare drawn pages of documents with poppler's.

    apt-get install poppler-utils img2pdf chromium texlive-latex-recommended texlive-pictures libreoffice-writer-nogui \
        libreoffice-calc-nogui libreoffice-impress-nogui fonts-liberation fonts-noto-cjk
    pip install numpy==2.1.3 pillow==10.3.0
    cargo build --release -p phi3v --example pages
    python scripts/reference/document_pages.py target/release/examples/pages FOLDER [FILE.pdf...]

Makes documents in FOLDER by LaTeX, LibreOffice, Chromium and img2pdf, and draws every page of theirs and of each FILE
twice, at the size that the tiles see: by phi3v and by pdftoppm. Prints a line for each page:
    mean      the mean difference of a channel, of 255
    block     the largest difference of the means of a block of 24x24 pixels; something that is missing shows here
and fails where a page is missing, incomplete, or has a block that differs by more than BLOCK.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

BLOCK_SIDE = 24
# text that is a little bolder or lighter in one of them makes some 20
BLOCK = 48

LATEX = {
    "article": r"""\documentclass{article}\usepackage{amsmath,amssymb}\begin{document}
\title{On sums}\author{A. Uthor}\maketitle\tableofcontents\section{Sums}
We have $\sum_{k=1}^n k = \frac{n(n+1)}2$ and \begin{align}\int_0^\infty e^{-x^2}\,dx &= \frac{\sqrt\pi}2\\
\begin{pmatrix}a&b\\c&d\end{pmatrix}^{-1}&=\frac1{ad-bc}\begin{pmatrix}d&-b\\-c&a\end{pmatrix}\end{align}
\newcommand\words{The quick brown fox jumps over the lazy dog, {\bfseries twice}, \emph{thrice} and {\ttfamily once more}. }
\words\words\words\words\footnote{A note below.}\begin{table}[h]\centering\begin{tabular}{|l|r|r|}\hline
Item&Number&Price\\\hline Apples&12&3.50\\Pears&7&2.10\\\hline\end{tabular}\caption{Fruit}\end{table}
\newpage\section{More}\begin{itemize}\item\words\item\words\begin{enumerate}\item\words\end{enumerate}\end{itemize}
\[\mathcal{F}\{f\}(\xi)=\int_{\mathbb R}f(x)e^{-2\pi ix\xi}\,dx\]\words\words\words\end{document}""",
    "columns": r"""\documentclass[twocolumn,10pt]{article}\usepackage{listings,xcolor}\begin{document}
\newcommand\words{Two columns of words in a small size that a reader has to tell apart from each other, line by line. }
\section*{Columns}\words\words\words\words\words\words\words\words\words\words\words\words\words\words\words\words
\begin{lstlisting}[language=C,basicstyle=\ttfamily\small,keywordstyle=\color{blue}]
int main(void) {
    for (int i = 0; i < 10; i++)
        printf("%d\n", i);
    return 0;
}
\end{lstlisting}\words\words\words\words\words\words\words\words\words\words\end{document}""",
    "drawing": r"""\documentclass{article}\usepackage{tikz}\begin{document}
\begin{tikzpicture}\draw[step=.5,gray,very thin](-4,-4)grid(4,4);\draw[->](-4,0)--(4,0);\draw[->](0,-4)--(0,4);
\draw[red,thick,domain=-4:4,samples=80]plot(\x,{3*sin(\x r)});\filldraw[fill=blue!30,opacity=.6](1,1)circle(1.5);
\shade[left color=yellow,right color=green](-3,-3)rectangle(-1,-1);\shade[ball color=orange](2,-2)circle(1);
\node[draw,dashed,rounded corners]at(-2,2){$e^{i\pi}=-1$};\end{tikzpicture}\newpage
\begin{tikzpicture}\foreach\i in{0,...,11}{\fill[black!\the\numexpr\i*8\relax](\i,0)rectangle+(1,2);
\draw[line width=\i*.4pt](0,3+\i*.4)--(12,3+\i*.4);}
\clip(6,12)circle(3);\foreach\i in{0,...,20}\draw[blue](\i*.6,8)--+(3,8);\end{tikzpicture}\end{document}""",
    "slides": r"""\documentclass{beamer}\usetheme{Madrid}\title{Slides}\author{A. Uthor}\begin{document}\frame{\titlepage}
\begin{frame}{Points}\begin{block}{A block}It has words.\end{block}\begin{itemize}\item One\item Two\end{itemize}
\begin{alertblock}{Careful}Red.\end{alertblock}\end{frame}\end{document}""",
}

HTML = {
    "page": """<style>body{font:16px sans-serif}h1{color:#036;border-bottom:3px double}table{border-collapse:collapse}
td,th{border:1px solid #888;padding:6px}.box{background:linear-gradient(90deg,#f80,#08f);border-radius:20px;
padding:30px;color:white;box-shadow:5px 5px 9px #888}.row{display:flex;gap:20px}.row div{flex:1;background:#eef}</style>
<h1>A page of the web</h1><p>Words with <b>bold</b>, <i>italic</i>, <code>code</code> and a <a href=x>link</a>.</p>
<div class=box>A gradient with a shadow</div><table><tr><th>City<th>Rain</tr><tr><td>Bergen<td>2250 mm</tr></table>
<div class=row><div>One<p>two</div><div>three</div></div><p style="opacity:.4">half seen</p>
<svg width=300 height=200><circle cx=80 cy=80 r=60 fill=red stroke=black stroke-width=6 /><path d="M150 150C200 0 250 250
290 20" fill=none stroke=green stroke-width=4 stroke-dasharray="12 6"/><text x=10 y=190 transform="rotate(-8)">turned
</text></svg>""",
    "scripts": """<style>p{font-size:22px}</style><p>Grüße, naïve façade, Ελληνικά, Русский, čeština</p><p>日本語の文章、
简体中文，한국어</p><p>← → ∀ ∃ ½ € £ ™</p><p style="font-family:serif;font-size:9px">Small print in a serif font that
goes on for a while so that it fills a line or two of the page.</p><p style="font-family:monospace">monospaced 0O1lI</p>""",
    "picture": """<body style="background:#fed"><canvas id=c width=400 height=300></canvas><script>
const x=document.getElementById('c').getContext('2d');for(let i=0;i<400;i++)for(let j=0;j<300;j++){
x.fillStyle=`rgb(${i*255/400},${j*255/300},${(i*j)%255})`;x.fillRect(i,j,1,1)}</script>
<p style="mix-blend-mode:multiply;background:cyan;width:200px">multiplied</p><div style="page-break-before:always">
Second page</div>""",
    "invoice": """<style>body{font:13px Arial}table{width:100%}td{border-bottom:1px solid #ccc;padding:4px}
.r{text-align:right}</style><h2>Invoice 2024-117</h2><table>"""
    + "".join(f"<tr><td>{n}<td>Item number {n}<td class=r>{n * 7}.50</tr>" for n in range(1, 60))
    + "</table>",
}

OFFICE_TEXT = """<html><body><h1>Report of the year</h1><p>A paragraph <b>with</b> <i>some</i> <u>forms</u> of
<font color="#cc0000">letters</font>, and a list:</p><ul><li>first</li><li>second</li></ul>
<table border="1"><tr><td>North</td><td>12</td></tr><tr><td bgcolor="#ffff99">South</td><td>34</td></tr></table>
<p style="page-break-before: always">The second page. """ + "Words fill the line. " * 150 + """</p></body></html>"""
OFFICE_SHEET = "Month,Income,Costs\n" + "".join(f"{n},{n * 137 % 1000},{n * 91 % 800}\n" for n in range(1, 90))


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)


def latex(folder):
    for name, text in LATEX.items():
        source = folder / f"latex-{name}.tex"
        source.write_text(text)
        for _ in range(2):  # the second run has the contents
            run("pdflatex", "-interaction=nonstopmode", source.name, cwd=folder)


def chromium(folder):
    for name, text in HTML.items():
        source = folder / f"chromium-{name}.html"
        source.write_text(f"<!doctype html><meta charset=utf-8>{text}")
        run("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000",
            f"--print-to-pdf={source.with_suffix('.pdf')}", source)


def office(folder):
    for name, ending, filter_name, text in [
        ("text", "html", "writer_web_HTML", OFFICE_TEXT),
        ("letter", "html", "HTML (StarWriter)", OFFICE_TEXT.replace("Report of the year", "Dear reader")),
        ("sheet", "csv", "Text - txt - csv (StarCalc)", OFFICE_SHEET),
    ]:
        source = folder / f"office-{name}.{ending}"
        source.write_text(text)
        run("soffice", f"-env:UserInstallation=file://{folder}/office", "--headless", f"--infilter={filter_name}",
            "--convert-to", "pdf", "--outdir", folder, source)


def scans(folder):
    page = Image.new("L", (1240, 1754), 244)
    draw = ImageDraw.Draw(page)
    for line in range(60):
        draw.text((90, 80 + line * 26), f"{line:02} a scanned line of words and numbers 0123456789 " * 2, fill=30)
    draw.rectangle((700, 900, 1100, 1300), fill=120)
    noise = np.random.default_rng(1).normal(0, 4, (1754, 1240))
    page = Image.fromarray(np.clip(np.asarray(page) + noise, 0, 255).astype("uint8"))
    color = Image.merge("RGB", [page, page.rotate(180), page.transpose(Image.FLIP_TOP_BOTTOM)])
    page.save(folder / "gray.jpg", quality=80)
    color.save(folder / "color.jpg", quality=85)
    page.convert("1").save(folder / "fax.tif", compression="group4")
    color.quantize(32).save(folder / "palette.png")
    for name in ["gray.jpg", "color.jpg", "fax.tif", "palette.png"]:
        run("img2pdf", folder / name, "-o", folder / f"img2pdf-{Path(name).stem}.pdf")


def pages(program, file, folder):
    """Number, width, height and whether it is incomplete, of each page that phi3v draws."""
    prefix = folder / f"{file.stem}-ours"
    told = subprocess.run([program, file, prefix, "16"], check=True, capture_output=True, text=True).stdout
    for line in told.splitlines():
        number, width, height, *rest = line.split()
        yield int(number), int(width), int(height), bool(rest), Path(f"{prefix}-{number}.ppm")


def compare(ours, theirs):
    """The mean difference, and the largest one of a block's means."""
    difference = ours.astype(float) - theirs.astype(float)
    height, width = (side // BLOCK_SIDE * BLOCK_SIDE for side in difference.shape[:2])
    blocks = difference[:height, :width].reshape(height // BLOCK_SIDE, BLOCK_SIDE, width // BLOCK_SIDE, BLOCK_SIDE, 3)
    return np.abs(difference).mean(), np.abs(blocks.mean(axis=(1, 3))).max()


def main():
    program, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    for make in (latex, chromium, office, scans):
        make(folder)
    files = sorted(folder.glob("*-*.pdf")) + [Path(name) for name in sys.argv[3:]]
    count, means, bad = 0, [], 0
    for file in files:
        expected = subprocess.run(["pdfinfo", file], check=True, capture_output=True, text=True).stdout
        expected = int(expected.split("Pages:")[1].split()[0])
        drawn = list(pages(program, file, folder))
        bad += len(drawn) != expected
        for number, width, height, incomplete, path in drawn:
            prefix = folder / f"{file.stem}-theirs-{number}"
            run("pdftoppm", "-f", number, "-l", number, "-singlefile", "-scale-to-x", width, "-scale-to-y", height, file, prefix)
            theirs = np.asarray(Image.open(f"{prefix}.ppm").convert("RGB"))
            mean, block = compare(np.asarray(Image.open(path)), theirs)
            wrong = incomplete or bool(block > BLOCK)
            count, bad = count + 1, bad + wrong
            means.append(mean)
            note = " INCOMPLETE" * incomplete + " LOOK" * wrong
            print(f"{file.name} {number}: {width}x{height} mean {mean:.2f} block {block:.1f}{note}")
    print(f"{count} pages of {len(files)} documents, mean {np.mean(means):.2f}, largest mean {max(means):.2f}, {bad} to look at")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
