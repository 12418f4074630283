// Makes signed passes with passkit-generator, and prints how many a second.
// Usage: rate.mjs FOLDER CERTIFICATE KEY THREADS SECONDS
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';
import { PKPass } from 'passkit-generator';

if (isMainThread) {
    const [folder, certificate, key, threads, seconds] = process.argv.slice(2);
    const file = fileURLToPath(import.meta.url);
    const data = { folder, certificate, key, seconds: Number(seconds) };
    const workers = Array.from({ length: Number(threads) }, () => new Worker(file, { workerData: data }));
    const rates = workers.map((worker) => new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
    }));
    const sum = (await Promise.all(rates)).reduce((one, other) => one + other);
    console.log(sum.toFixed(1));
} else {
    const { folder, certificate, key, seconds } = workerData;
    const names = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const files = Object.fromEntries(names.map((entry) => {
        const path = join(entry.parentPath, entry.name);
        return [path.slice(folder.length + 1), readFileSync(path)];
    }));
    const text = files['pass.json'].toString();
    const certificates = {
        wwdr: readFileSync(certificate),
        signerCert: readFileSync(certificate),
        signerKey: readFileSync(key),
    };
    const make = (number) => {
        const json = Buffer.from(text.replace('"2001"', `"${number}"`));
        return new PKPass({ ...files, 'pass.json': json }, certificates).getAsBuffer();
    };
    // The first passes are slower, until the code is compiled.
    for (let number = 0; number < 20; number += 1) make(number);
    const start = performance.now();
    let made = 0;
    while (performance.now() - start < seconds * 1000) {
        make(made);
        made += 1;
    }
    parentPort.postMessage(made / ((performance.now() - start) / 1000));
}
