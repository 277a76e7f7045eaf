console.log("skipped: no browser tests yet");
