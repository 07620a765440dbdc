/** What the explorer says, in the languages of the pack. A text that is missing is said in English. */

const TEXTS = {
  en: {
    explorer: "Concept explorer",
    picture_help: "Picture. Arrow keys move over its patches, digits choose a concept.",
    mask_help: "Picture with the mask. Arrow keys move over its patches, Enter picks the concept that is strongest there.",
    concepts: "Concepts",
    contrast: "contrast",
    presence: "Presence in the picture",
    patch: "Share of the patch in row {y}, column {x}",
    opacity: "Opacity",
    step: "Step",
    all: "all",
    picture: "Picture",
    threshold: "Threshold",
    grow: "Grow",
    feather: "Feather",
    unused: "The method finds its own threshold.",
    soft: "The method soft makes the map itself the mask.",
    linked: "Another node gives this value.",
    first: "Run once to see the mask here while you change it.",
    covered: "{share} of the picture",
    unknown: "There is no concept of that name here.",
    gone: "The maps are no longer on the server. Run again.",
  },
  zh: {
    explorer: "概念浏览器",
    picture_help: "图像。方向键在图块间移动，数字键选择概念。",
    mask_help: "带遮罩的图像。方向键在图块间移动，回车键选取该处最强的概念。",
    concepts: "概念",
    contrast: "对比词",
    presence: "在图像中的存在度",
    patch: "第 {y} 行第 {x} 列图块中的份额",
    opacity: "不透明度",
    step: "步",
    all: "全部",
    picture: "图像",
    threshold: "阈值",
    grow: "扩展",
    feather: "羽化",
    unused: "此方法自行确定阈值。",
    soft: "soft 方法直接以热图作遮罩。",
    linked: "此值由另一个节点给出。",
    first: "先运行一次，之后在此调整时可即时看到遮罩。",
    covered: "占图像的 {share}",
    unknown: "这里没有这个名称的概念。",
    gone: "热图已不在服务器上，请重新运行。",
  },
  de: {
    explorer: "Begriffs-Explorer",
    picture_help: "Bild. Pfeiltasten gehen über seine Felder, Ziffern wählen einen Begriff.",
    mask_help: "Bild mit der Maske. Pfeiltasten gehen über seine Felder, Eingabe wählt den dort stärksten Begriff.",
    concepts: "Begriffe",
    contrast: "Gegenbegriff",
    presence: "Präsenz im Bild",
    patch: "Anteil am Feld in Zeile {y}, Spalte {x}",
    opacity: "Deckkraft",
    step: "Schritt",
    all: "alle",
    picture: "Bild",
    threshold: "Schwelle",
    grow: "Erweitern",
    feather: "Weiche Kante",
    unused: "Die Methode findet ihre Schwelle selbst.",
    soft: "Bei der Methode soft ist die Karte selbst die Maske.",
    linked: "Diesen Wert gibt ein anderer Knoten.",
    first: "Einmal ausführen, dann ist die Maske hier beim Ändern zu sehen.",
    covered: "{share} des Bildes",
    unknown: "Hier gibt es keinen Begriff dieses Namens.",
    gone: "Die Karten sind nicht mehr auf dem Server. Bitte noch einmal ausführen.",
  },
  ja: {
    explorer: "コンセプトエクスプローラー",
    picture_help: "画像。矢印キーでパッチを移動し、数字キーでコンセプトを選びます。",
    mask_help: "マスクを重ねた画像。矢印キーでパッチを移動し、Enter でその場所で最も強いコンセプトを選びます。",
    concepts: "コンセプト",
    contrast: "対照語",
    presence: "画像内の存在度",
    patch: "{y} 行 {x} 列のパッチでの割合",
    opacity: "不透明度",
    step: "ステップ",
    all: "全体",
    picture: "画像",
    threshold: "しきい値",
    grow: "拡張",
    feather: "ぼかし",
    unused: "この方式はしきい値を自動で決めます。",
    soft: "soft ではマップそのものがマスクになります。",
    linked: "この値は別のノードから来ます。",
    first: "一度実行すると、変更中のマスクがここに表示されます。",
    covered: "画像の {share}",
    unknown: "その名前のコンセプトはここにありません。",
    gone: "マップはもうサーバーにありません。もう一度実行してください。",
  },
};

let language = "en";

/** locale: as the frontend's setting has it, such as "de" or "zh-TW". */
export function speak(locale) {
  const short = String(locale ?? "en").slice(0, 2);
  language = short in TEXTS ? short : "en";
}

/** The text of that name, its {places} filled. */
export function say(name, places = {}) {
  return (TEXTS[language][name] ?? TEXTS.en[name]).replace(/\{(\w+)\}/g, (_, place) => places[place]);
}
