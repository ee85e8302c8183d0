import re

from epigen_utils.book import sphinx_pages


def test_a_formula_is_drawn_without_a_script():
    shown = sphinx_pages.mathml(r"\mathrm{CE} = -\frac{1}{n} \sum_i \log q_i \tag{Eq. 5}", block=True)
    assert re.match(r'<math[^>]* display="block"', shown)
    assert "<mfrac>" in shown
    assert shown.endswith("<span>(Eq. 5)</span>")
    assert re.match(r'<math[^>]* display="inline"', sphinx_pages.mathml("a_b"))
    assert "<mo>&#x0003C;</mo>" in sphinx_pages.mathml("a < b")


def test_previews_of_what_links_lead_to():
    page = """
    <dt id="term-AUC">AUC<a class="headerlink" href="#x">#</a></dt><dd><p>Area <a href="y.html">under</a> it.</p><p>More.</p></dd>
    <div class="citation" id="id3" role="doc-biblioentry"><span class="label">[AZ20]</span>
    <p>Samira Abnar. <em>ACL</em>, 2020.</p></div>
    <article class="epigen-claim epigen-for" id="claim-A4"><p><strong class="v">agrees</strong></p><blockquote>“n = 3”</blockquote></article>
    <figure class="align-default" id="fig-a">
    <a class="image-reference" href="../_images/a.png"><img alt="A &lt;b&gt;." src="../_images/a.png" style="width: 6px;" />
    </a>
    <figcaption>
    <p><span class="caption-number">Figure 1 </span>Cells.<a class="headerlink" href="#fig-a">#</a></p>
    </figcaption></figure>
    <table class="table" id="tab-a">
    <caption><span>Table 1 </span>Scores.<a class="headerlink" href="#tab-a">#</a></caption></table>"""
    shown = sphinx_pages.previews("a/b.html", page)
    assert {name: " ".join(text.split()) for name, text in shown.items()} == {
        "a/b.html#term-AUC": "Area under it.",
        "a/b.html#id3": "Samira Abnar. <em>ACL</em>, 2020.",
        "a/b.html#claim-A4": '<strong class="v">agrees</strong><blockquote>“n = 3”</blockquote>',
        "a/b.html#fig-a": '<img alt="A &lt;b&gt;." src="_images/a.png" /> <span class="caption-number">Figure 1 </span>Cells.',
        "a/b.html#tab-a": "<span>Table 1 </span>Scores.",
    }


def test_a_page_without_the_script_of_icons():
    page = """<link href="_static/vendor/fontawesome/6/css/all.min.css?digest=d" rel="stylesheet" />
<link rel="preload" as="font" href="_static/vendor/fontawesome/6/webfonts/fa-solid-900.woff2" />
<script src="_static/vendor/fontawesome/6/js/all.min.js?digest=d"></script>
<script src="_static/search.js"></script><summary><span class="toctree-toggle"></span></summary><table class="epigen-table table">"""
    assert sphinx_pages.light(page) == page.replace(page.splitlines()[1] + "\n", "").replace(
        page.splitlines()[2] + "\n", ""
    ).replace("<summary>", sphinx_pages.NAVIGATION_BUTTON).replace("<table", '<table tabindex="0"')
