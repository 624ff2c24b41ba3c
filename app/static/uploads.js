// Files and folders that are dropped or chosen, sent a few at a time.

const KNOWN = /\.(png|jpe?g|webp|bmp|tiff?|gif|heic|heif|hif|apng|jfif|avif|txt|caption|jsonl)$/i;
const AT_ONCE = 4;
const DEEPEST = 3;

// What of a folder is sent: no hidden files; of the rest what can be images or captions, or all if nothing can.
export const chosenOf = (files) => {
  const visible = [...files].filter((file) => !file.name.startsWith("."));
  const known = visible.filter((file) => KNOWN.test(file.name));
  return known.length ? known : visible;
};

// The folder that a dropped file lay in; files of a chosen folder say it themselves.
const folders = new WeakMap();
const folderOf = (file) => folders.get(file) ?? file.webkitRelativePath?.split("/").at(-2) ?? "";

// Every file below some entries of a drop, in the order of their folders.
export const filesBelow = async (entries) => {
  const found = [];
  const walk = async (entry, depth, folder) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      folders.set(file, folder);
      found.push(file);
    } else if (entry.isDirectory && depth < DEEPEST) {
      const reader = entry.createReader();
      for (;;) {
        const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!batch.length) break;
        for (const child of batch) await walk(child, depth + 1, entry.name);
      }
    }
  };
  for (const entry of entries) await walk(entry, 0, "");
  return found;
};

// Sends files a few at a time; answers {path, name, folder} in the order of `files`, with no path for what did not
// arrive.
export const sendAll = async (files, send, tell) => {
  const sent = [];
  let next = 0;
  let done = 0;
  tell(done, files.length);
  const worker = async () => {
    while (next < files.length) {
      const index = next++;
      const told = { path: "", name: files[index].name, folder: folderOf(files[index]) };
      try {
        sent[index] = { ...told, path: (await send(files[index])).path };
      } catch {
        sent[index] = told;
      }
      done += 1;
      tell(done, files.length);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return sent;
};
