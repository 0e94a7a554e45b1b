// Markdown to DOM nodes. Text only ever becomes text nodes and a fixed set of elements without attributes from the
// text, but for the href of http(s) links: what a picture makes the model say cannot become script.

// what is bounded would be looked through to its end from each of its beginnings
const INLINE = /`([^`\n]+)`|\*\*([^\n]+?)\*\*|__([^\n]+?)__|\*([^*\s][^*\n]*?)\*|\[([^\]\n]{1,300})\]\((https?:\/\/[^\s)]{1,2000})\)/;

/** Quotations within one another; deeper ones are shown as the last of these. */
const QUOTES_MAX = 20;

function element(name, ...children) {
  const node = document.createElement(name);
  node.append(...children);
  return node;
}

/** The nodes of one line's text. */
function inline(text) {
  const nodes = [];
  let match;
  while ((match = INLINE.exec(text))) {
    const [whole, code, stars, underscores, star, label, href] = match;
    if (match.index > 0) nodes.push(text.slice(0, match.index));
    if (code !== undefined) nodes.push(element('code', code));
    else if (stars ?? underscores) nodes.push(element('strong', ...inline(stars ?? underscores)));
    else if (star) nodes.push(element('em', ...inline(star)));
    else {
      const link = element('a', ...inline(label));
      link.href = href;
      link.rel = 'noopener noreferrer nofollow';
      link.target = '_blank';
      nodes.push(link);
    }
    text = text.slice(match.index + whole.length);
  }
  if (text) nodes.push(text);
  return nodes;
}

const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
const cells = (line) => line.trim().replace(/^\||\|$/g, '').split('|').map((cell) => cell.trim());

/** Takes a list and what is nested in it from `lines` at `at`. */
function list(lines, at) {
  const [, indent, marker] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(marker);
  const node = element(ordered ? 'ol' : 'ul');
  if (ordered) node.start = parseInt(marker, 10);
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    if (!item || item[1].length < indent.length) break;
    if (item[1].length > indent.length + 1 && node.lastChild) {
      const [nested, next] = list(lines, at);
      node.lastChild.append(nested);
      at = next;
    } else {
      node.append(element('li', ...inline(item[3])));
      at += 1;
    }
  }
  return [node, at];
}

function table(lines, at) {
  const row = (line, name) => element('tr', ...cells(line).map((cell) => element(name, ...inline(cell))));
  const body = element('tbody');
  const head = element('thead', row(lines[at], 'th'));
  for (at += 2; at < lines.length && lines[at].includes('|'); at += 1) body.append(row(lines[at], 'td'));
  return [element('table', head, body), at];
}

function paragraph(lines, at) {
  const node = element('p');
  const starts = (line) => !line.trim() || /^(#{1,6}\s|```|>)/.test(line) || ITEM.test(line) || RULE.test(line);
  do {
    if (node.hasChildNodes()) node.append(element('br'));
    node.append(...inline(lines[at]));
    at += 1;
  } while (at < lines.length && !starts(lines[at]));
  return [node, at];
}

function block(lines, at, quotes) {
  const line = lines[at];
  const heading = /^(#{1,6})\s+(.*)$/.exec(line);
  // the page has h1 and h2 itself
  if (heading) return [element(`h${Math.min(6, heading[1].length + 2)}`, ...inline(heading[2])), at + 1];
  if (line.startsWith('```')) {
    let end = at + 1;
    while (end < lines.length && !lines[end].startsWith('```')) end += 1;
    return [element('pre', element('code', lines.slice(at + 1, end).join('\n'))), end + 1];
  }
  if (RULE.test(line)) return [element('hr'), at + 1];
  if (line.startsWith('>')) {
    let end = at;
    while (end < lines.length && lines[end].startsWith('>')) end += 1;
    const mark = quotes < QUOTES_MAX - 1 ? /^>\s?/ : /^(?:>\s?)+/;
    const inner = lines.slice(at, end).map((quoted) => quoted.replace(mark, ''));
    return [element('blockquote', render(inner.join('\n'), quotes + 1)), end];
  }
  if (ITEM.test(line)) return list(lines, at);
  if (line.includes('|') && /^\s*(?:\|\s*)?:?-{3,}/.test(lines[at + 1] ?? '')) return table(lines, at);
  return paragraph(lines, at);
}

/** The nodes of a whole text, which stands within so many quotations. */
export function render(text, quotes = 0) {
  const fragment = document.createDocumentFragment();
  const lines = text.split('\n');
  for (let at = 0; at < lines.length;) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [node, next] = block(lines, at, quotes);
    fragment.append(node);
    at = next;
  }
  return fragment;
}
