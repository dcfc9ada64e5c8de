"use strict";
// Draws the charts in the page's own colours, and again when the reader switches between light and dark.
(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // "@name" as a colour, or in a scale of them, is a variable of the style sheet; elsewhere it is somebody's text.
  const coloured = (value, key) => {
    if (typeof value === "string") {
      return (key === "color" || key === "colorscale") && value.startsWith("@") ? colour(value.slice(1)) : value;
    }
    if (Array.isArray(value)) {
      return value.map((each) => coloured(each, key));
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, coloured(each, name)]));
    }
    return value;
  };

  const axis = (own) => ({
    gridcolor: colour("grid"), linecolor: colour("rule"), zerolinecolor: colour("rule"), automargin: true, ...own,
  });

  const draw = (element, figure) => {
    const { data, layout } = coloured(figure);
    const themed = {
      height: 340,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      hoverlabel: { align: "left", bgcolor: colour("surface"), font: { color: colour("ink") } },
      ...layout,
      margin: { l: 56, r: 16, t: 28, b: 48, ...layout.margin },
      xaxis: axis(layout.xaxis),
      yaxis: axis(layout.yaxis),
    };
    window.Plotly.react(element, data, themed, { responsive: true, displayModeBar: false });
  };

  const read = (element) => JSON.parse(element.querySelector("script[type='application/json']").textContent);

  const course = (video, label) => {
    const line = (name, key, colour_, dash) => ({
      type: "scatter", mode: "lines+markers", name, x: video.x, y: video[key], connectgaps: false,
      customdata: video.words.map((words, index) => [words, video.available[index]]),
      line: { color: colour_, width: 2, dash }, marker: { size: 7, color: colour_ },
      hovertemplate: `${name} %{y:.2f} (%{customdata[1]})<br>%{customdata[0]}<extra></extra>`,
    });
    const data = [line("predicted", "predicted", "@accent", "solid")];
    if (video.true.some((value) => value !== null)) {
      data.unshift(line("true", "true", "@muted", "dot"));
    }
    return { data, layout: {
      xaxis: { title: { text: video.axis } }, yaxis: { title: { text: label } }, hovermode: "closest",
    } };
  };

  const charts = [...document.querySelectorAll(".chart")].map((element) => {
    const figure = read(element);
    return () => draw(element, figure);
  });
  for (const element of document.querySelectorAll(".timeline")) {
    const { label, videos } = read(element);
    const select = element.querySelector("select");
    videos.forEach((video, index) => select.add(new Option(video.name, String(index))));
    const show = () => draw(element.querySelector(".canvas"), course(videos[Number(select.value)], label));
    select.addEventListener("change", show);
    charts.push(show);
  }
  const drawAll = () => charts.forEach((show) => show());
  drawAll();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
