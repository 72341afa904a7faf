// catalogue.js: makes of a .po file what the interface loads as its language.  gettext.knows() tells whether a text is in it.
'use strict';
const texts = {};
for (const entry of require('fs').readFileSync(0, 'utf8').split(/\n\n+/)) {
	if (/^#(,.*fuzzy|~)/m.test(entry)) continue;
	const field = (name) => {
		const found = new RegExp(`^${name} ((?:"(?:.*)"\\n)+)`, 'm').exec(`${entry}\n`);
		return found ? found[1].trim().split('\n').map((line) => JSON.parse(line)).join('') : '';
	};
	const text = field('msgid');
	if (text && !/^msgctxt /m.test(entry)) texts[text] = field('msgstr') || field('msgstr\\[0\\]');
}
process.stdout.write(`var gettext = (function (texts) {
	var get = function (text) { return texts[text] || text; };
	get.knows = function (text) { return !!texts[text]; };
	return get;
})(${JSON.stringify(texts)});
function ngettext(one, many, count) { return gettext(count === 1 ? one : many); }
function pgettext(context, text) { return gettext(text); }
function npgettext(context, one, many, count) { return ngettext(one, many, count); }
`);
