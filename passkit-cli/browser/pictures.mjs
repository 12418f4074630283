// Draws each SVG file of a folder as PNG, and puts those whose names begin with "style-" into one image.
import fs from "node:fs";
import path from "node:path";
import puppeteer from "puppeteer-core";

const folder = path.resolve(process.argv[2]);
const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  const tab = await browser.newPage();
  const files = fs.readdirSync(folder).filter(name => name.endsWith(".svg"));
  const uri = name => `data:image/svg+xml;base64,${fs.readFileSync(path.join(folder, name)).toString("base64")}`;
  const draw = async (names, width, output) => {
    const images = names.map(name => `<img src="${uri(name)}" style="margin:8px;vertical-align:top">`).join("");
    await tab.setViewport({ width, height: 600, deviceScaleFactor: output === "styles.png" ? 0.6 : 2 });
    await tab.setContent(`<body style="margin:0;background:#fff;line-height:0">${images}`, { waitUntil: "load" });
    await tab.screenshot({ path: path.join(folder, output), fullPage: true });
  };
  for (const name of files) await draw([name], 400, name.replace(".svg", ".png"));
  await draw(files.filter(name => name.startsWith("style-")), 1180, "styles.png");
} finally {
  await browser.close();
}
