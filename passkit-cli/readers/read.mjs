// Reads a signed pass with @walletpass/pass-js, and compares it with the folder that was signed.
// Usage: read.mjs FOLDER ARCHIVE
import { deepStrictEqual as same } from 'node:assert';
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Template } from '@walletpass/pass-js';

const [folder, archive] = process.argv.slice(2);
const source = JSON.parse(readFileSync(join(folder, 'pass.json')));
const names = readdirSync(folder, { recursive: true });

const read = await Template.fromBuffer(readFileSync(archive));
const pass = JSON.parse(JSON.stringify(read.createPass()));
for (const key of ['serialNumber', 'passTypeIdentifier', 'teamIdentifier', 'description', 'barcodes']) {
    same(pass[key], source[key], key);
}
// The library does not know newer styles. It reads the older style in the same pass.
const styles = ['boardingPass', 'coupon', 'eventTicket', 'generic', 'storeCard'];
const style = styles.find((style) => style in source);
same(read.style, style);
for (const group of ['headerFields', 'primaryFields', 'backFields']) {
    same(pass[style][group] ?? [], source[style][group] ?? [], group);
}

const digest = (content) => createHash('sha1').update(content).digest('hex');
const images = (await read.images.toArray()).map(({ path, data }) => [path, digest(data)]);
// The library leaves out the images of newer styles.
const inFolder = names.filter((name) => name.endsWith('.png') && !/^(artwork|primaryLogo)[@.]/.test(name));
same(
    Object.fromEntries(images),
    Object.fromEntries(inFolder.map((name) => [name, digest(readFileSync(join(folder, name)))])),
    'images',
);
const languages = names.filter((name) => name.endsWith('.lproj')).map((name) => name.slice(0, 2));
same([...read.localization.keys()].sort(), languages.sort(), 'languages');
for (const language of languages) {
    const bytes = readFileSync(join(folder, `${language}.lproj`, 'pass.strings'));
    // The library reads translations in UTF-16 only.
    if (bytes[0] !== 0xff) continue;
    const lines = bytes.toString('utf16le').matchAll(/"(.*)" = "(.*)";\n/g);
    const pairs = [...lines].map(([, key, value]) => [key, value]);
    same([...read.localization.get(language)], pairs, 'translations');
}
console.log(`${basename(archive)}: ${images.length} images and ${languages.length} languages read`);
