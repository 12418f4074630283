// fastify-passkit-webservice or hono-passkit-webservice: node toolkit_peer.mjs PORT fastify|hono
// The libraries leave storage and dates to their user. Here they are as good as the libraries' interface allows. The
// libraries offer no pushes.

import { createHash } from "node:crypto";
import { createServer } from "node:http";

const [port, library] = [Number(process.argv[2]), process.argv[3]];
const PASSES = new Map([
    ["pass.com.example.a/A-1", "token-of-a-1-0123456789"],
    ["pass.com.example.a/A-2", "token-of-a-2-0123456789"],
    ["pass.com.example.a/A-3", "token-of-a-3-0123456789"],
    ["pass.com.example.b/A-1", "token-of-b-1-0123456789"],
]);
let clock = Date.now();
const tick = () => ++clock;
const versions = new Map([...PASSES.keys()].map((key) => [key, { tag: clock, date: Date.now() }]));
const registered = new Map(); // "device/type/serial" -> clock when registered
const { HTTPException } = library === "hono" ? await import("hono/http-exception") : {};

// Both frameworks send the status of such an error as the answer.
function refuseUnknown(key) {
    if (PASSES.has(key)) return;
    throw HTTPException ? new HTTPException(401) : Object.assign(new Error("unknown pass"), { statusCode: 401 });
}

// A zip without compression.
function zip(files) {
    const table = Array.from({ length: 256 }, (_, n) => {
        for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
        return n >>> 0;
    });
    const crc = (data) => (data.reduce((c, byte) => table[(c ^ byte) & 255] ^ (c >>> 8), 0xffffffff) ^ 0xffffffff) >>> 0;
    const parts = [], directory = [];
    let offset = 0;
    for (const [name, data] of files) {
        const common = Buffer.alloc(26);
        common.writeUInt16LE(20, 0);
        common.writeUInt16LE(33, 8); // 1980-01-01
        common.writeUInt32LE(crc(data), 10);
        common.writeUInt32LE(data.length, 14);
        common.writeUInt32LE(data.length, 18);
        common.writeUInt16LE(name.length, 22);
        const local = Buffer.concat([Buffer.from("PK\x03\x04"), common, Buffer.from(name), data]);
        const place = Buffer.alloc(14);
        place.writeUInt32LE(offset, 10);
        directory.push(Buffer.concat([Buffer.from("PK\x01\x02\x14\x00", "latin1"), common, place, Buffer.from(name)]));
        parts.push(local);
        offset += local.length;
    }
    const entries = Buffer.concat(directory), end = Buffer.alloc(22);
    end.write("PK\x05\x06", "latin1");
    end.writeUInt16LE(files.length, 8);
    end.writeUInt16LE(files.length, 10);
    end.writeUInt32LE(entries.length, 12);
    end.writeUInt32LE(offset, 16);
    return Buffer.concat([...parts, entries, end]);
}

function archive(key) {
    const [type, serial] = key.split("/");
    const content = Buffer.from(JSON.stringify({
        formatVersion: 1, passTypeIdentifier: type, serialNumber: serial, teamIdentifier: "EXAMPLE123",
        organizationName: "Example", description: "A pass",
        generic: { primaryFields: [{ key: "version", value: versions.get(key).tag }] },
        webServiceURL: "https://wallet.example.com", authenticationToken: PASSES.get(key),
    }));
    const manifest = Buffer.from(JSON.stringify({ "pass.json": createHash("sha1").update(content).digest("hex") }));
    return new Uint8Array(zip([["pass.json", content], ["manifest.json", manifest]]));
}

const handlers = {
    async onRegister(device, type, serial) {
        refuseUnknown(`${type}/${serial}`);
        const key = `${device}/${type}/${serial}`;
        const isNew = !registered.has(key);
        if (isNew) registered.set(key, tick());
        return isNew;
    },
    async onUnregister(device, type, serial) {
        refuseUnknown(`${type}/${serial}`);
        registered.delete(`${device}/${type}/${serial}`);
        return true;
    },
    // The libraries report only the token, and not the pass that the token must belong to.
    async tokenVerifier(token) {
        return [...PASSES.values()].includes(token);
    },
    async onListRetrieve(device, type, { passesUpdatedSince }) {
        const since = /^\d+$/.test(passesUpdatedSince ?? "") ? Number(passesUpdatedSince) : 0;
        const mine = [...registered].filter(([key]) => key.startsWith(`${device}/${type}/`));
        const tags = mine.map(([key, at]) => {
            const pass = key.slice(device.length + 1);
            return [pass.slice(type.length + 1), Math.max(at, versions.get(pass)?.tag ?? 0)];
        });
        const changed = tags.filter(([, tag]) => tag > since);
        if (changed.length === 0) return undefined;
        return { serialNumbers: changed.map(([serial]) => serial), lastUpdated: String(Math.max(...tags.map(([, tag]) => tag))) };
    },
    async onUpdateRequest(type, serial, modifiedSince) {
        const key = `${type}/${serial}`;
        refuseUnknown(key);
        const date = Math.floor(versions.get(key).date / 1000) * 1000;
        return modifiedSince >= date ? undefined : archive(key);
    },
    onIncomingLogs() {},
};

function touch(type, serial) {
    const one = versions.get(`${type}/${serial}`);
    one.tag = tick();
    one.date = Math.max(Date.now(), one.date + 1000);
}

const [registration, list, update, log] = await Promise.all(
    ["registration", "list", "update", "log"].map((name) => import(`${library}-passkit-webservice/v1/${name}.js`)));
if (library === "fastify") {
    const { default: Fastify } = await import("fastify");
    const app = Fastify({ routerOptions: { maxParamLength: 200, ignoreDuplicateSlashes: true, ignoreTrailingSlash: true } });
    for (const plugin of [registration, list, update, log]) app.register(plugin.default, handlers);
    app.post("/touch/:type/:serial", async ({ params }) => (touch(params.type, params.serial), ""));
    await app.listen({ port, host: "127.0.0.1" });
} else {
    const { Hono } = await import("hono");
    const { getRequestListener } = await import("@hono/node-server");
    const { getPath } = await import("hono/utils/url");
    const app = new Hono({ getPath: (request) => getPath(request).replace(/\/{2,}/g, "/").replace(/(.)\/$/, "$1") });
    for (const router of [registration, list, update, log]) app.route("/", router.default(handlers));
    app.post("/touch/:type/:serial", (context) => {
        touch(context.req.param("type"), context.req.param("serial"));
        return context.body(null);
    });
    createServer(getRequestListener(app.fetch)).listen(port, "127.0.0.1");
}
